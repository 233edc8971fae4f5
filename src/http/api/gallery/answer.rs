//! Answers that several operations on galleries share.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::Error,
    gallery::{Binding, GalleryName, Item, ItemId, Label, Metadata, Neighbor, Written},
    http::{
        Result,
        response::{
            answer::{first_error, json},
            problem::Problem,
        },
    },
    service::{Answers, Timed},
};

/// What was done with an item of a request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WriteStatus {
    /// The item is new.
    Created,
    /// It replaced an item with the same id.
    Replaced,
    /// An item with the same id stayed, because of `on_conflict=skip`.
    Skipped,
    /// It was not stored.
    Failed,
}

impl From<Written> for WriteStatus {
    fn from(written: Written) -> Self {
        match written {
            Written::Created { .. } => Self::Created,
            Written::Replaced { .. } => Self::Replaced,
            Written::Kept { .. } => Self::Skipped,
        }
    }
}

/// A stored item.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemJson {
    /// Id of the item.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// Position in the order of the gallery.
    #[schema(example = 17)]
    place: u64,
    /// Label, if it has one.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// Metadata.
    #[schema(value_type = Object, example = json!({"year": 2024}))]
    metadata: Metadata,
    /// Time when it was last stored, in milliseconds since 1970.
    #[schema(example = 1_790_000_000_000_u64)]
    stored_ms: u64,
}

impl From<Item> for ItemJson {
    fn from(item: Item) -> Self {
        Self {
            id: item.id,
            place: item.place,
            label: item.label,
            metadata: item.metadata,
            stored_ms: item.stored_ms,
        }
    }
}

/// A stored item and its score.
#[derive(Serialize, ToSchema)]
pub(crate) struct NeighborJson {
    /// Id of the item.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// Cosine similarity of the vectors: -1 to 1, where 1 is the same direction.
    #[schema(example = 0.93)]
    score: f32,
    /// Label, if it has one.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// Metadata.
    #[schema(value_type = Object, example = json!({"year": 2024}))]
    metadata: Metadata,
    /// Position in the order of the gallery.
    #[schema(example = 17)]
    place: u64,
}

impl NeighborJson {
    fn new(Neighbor { item, score }: Neighbor) -> Self {
        Self {
            id: item.id,
            score,
            label: item.label,
            metadata: item.metadata,
            place: item.place,
        }
    }

    /// Converts neighbors, keeping their order.
    pub(crate) fn list(neighbors: Vec<Neighbor>) -> Vec<Self> {
        neighbors.into_iter().map(Self::new).collect()
    }
}

/// An answer from a gallery, with the model of its vectors.
#[derive(Serialize, ToSchema)]
pub(crate) struct FromGallery<T> {
    /// Name of the model of the gallery's vectors.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of their features.
    fingerprint: String,
    /// Name of the gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    #[serde(flatten)]
    answer: T,
}

impl<T> FromGallery<T> {
    pub(crate) fn new(gallery: GalleryName, binding: Binding, answer: T) -> Self {
        Self {
            model: binding.model.name,
            fingerprint: binding.model.fingerprint.to_string(),
            gallery,
            answer,
        }
    }
}

/// Builds the response with the outcome of each image or vector of a request.
pub(crate) fn answer_each<A: Into<T>, T: Serialize>(
    gallery: GalleryName,
    answers: Timed<Answers<A>>,
) -> Result<Response> {
    let Answers { binding, outcomes } = answers.value;
    let answer: OneOrMore<T> = OneOrMore::new(outcomes)?;
    json(&FromGallery::new(gallery, binding, answer), &answers.stages)
}

/// The answer itself for one image or vector; a list of answers for several images.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMore<T> {
    One(T),
    More {
        /// One entry per image, in the order of the request.
        data: Vec<OfImage<T>>,
    },
}

/// Answer for an image, or the problem with the image.
#[derive(Serialize, ToSchema)]
pub(crate) struct OfImage<T> {
    /// Index of the image in the request.
    index: usize,
    #[serde(flatten)]
    outcome: ImageOutcome<T>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ImageOutcome<T> {
    Answer(T),
    Failed {
        /// Problem with this image.
        error: Problem,
    },
}

impl<T> OneOrMore<T> {
    /// Converts the outcome of each image. An invalid image among valid ones fails alone.
    ///
    /// # Errors
    /// The error of the first image if there is no valid one.
    pub(crate) fn new<A: Into<T>>(mut outcomes: Vec<Result<A, Error>>) -> Result<Self, Error> {
        if outcomes.iter().all(Result::is_err) {
            return Err(first_error(outcomes));
        }
        if outcomes.len() == 1 {
            return Ok(Self::One(outcomes.swap_remove(0)?.into()));
        }
        let mut data = Vec::with_capacity(outcomes.len());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let outcome = match outcome {
                Ok(answer) => ImageOutcome::Answer(answer.into()),
                Err(error) => ImageOutcome::Failed {
                    error: Problem::new(error),
                },
            };
            data.push(OfImage { index, outcome });
        }
        Ok(Self::More { data })
    }
}
