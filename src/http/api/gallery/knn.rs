//! `GET` and `POST /v1/knn`.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    gallery::{Binding, GalleryName, ItemId},
    http::{
        api::{
            gallery::{
                GalleryOption, NeighborJson,
                schema::{
                    FilterParams, GalleryParams, GalleryProblems, ImageOrVectorJson,
                    KnnOfItemParams, SearchParams, SearchProblems, VectorParams,
                },
                take_filter,
            },
            schema::{File, ImageParams, ImagesForm},
        },
        request::{body::SubjectRequest, options::Options},
        response::{
            negotiate::{Representation, answer},
            problem::Problem,
        },
    },
    service::{Answers, SearchOptions, Service, Stages, VectorOptions},
};

/// Where neighbors were sought, and the answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct FromGallery<T> {
    /// The model that the gallery's vectors are of.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Identifies its features.
    fingerprint: String,
    /// The gallery.
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

impl<T: Serialize> FromGallery<OneOrMore<T>> {
    /// The answer about each subject of a request.
    ///
    /// # Errors
    /// What is wrong with the subject if there is only one.
    pub(crate) fn respond(
        gallery: GalleryName,
        binding: Binding,
        outcomes: Vec<Result<T>>,
        stages: &Stages,
    ) -> Result<Response> {
        respond(
            &Self::new(gallery, binding, OneOrMore::new(outcomes)?),
            stages,
        )
    }
}

/// Of one image or vector the answer itself; of several images a list of answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMore<T> {
    One(T),
    More {
        /// One entry per image.
        data: Vec<OfImage<T>>,
    },
}

/// The answer about an image, or what is wrong with the image.
#[derive(Serialize, ToSchema)]
pub(crate) struct OfImage<T> {
    /// Which image of the request.
    index: usize,
    #[serde(flatten)]
    outcome: ImageOutcome<T>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ImageOutcome<T> {
    Answer(T),
    Failed {
        /// Why there is none.
        error: Problem,
    },
}

impl<T> OneOrMore<T> {
    /// A bad image among good ones spoils only itself. When no image is good, the request as a
    /// whole has failed.
    pub(crate) fn new(mut outcomes: Vec<Result<T>>) -> Result<Self> {
        if outcomes.len() == 1 {
            return outcomes.swap_remove(0).map(Self::One);
        }
        if outcomes.iter().all(Result::is_err) {
            let first = outcomes.into_iter().find_map(Result::err);
            return Err(first.map_or_else(
                || Error::internal("nothing was asked"),
                |error| error.context("image 0"),
            ));
        }
        let of_image = |(index, outcome): (usize, Result<T>)| {
            let outcome = match outcome {
                Ok(answer) => ImageOutcome::Answer(answer),
                Err(error) => ImageOutcome::Failed {
                    error: Problem::new(&error),
                },
            };
            OfImage { index, outcome }
        };
        Ok(Self::More {
            data: outcomes.into_iter().enumerate().map(of_image).collect(),
        })
    }
}

pub(crate) fn respond(body: &impl Serialize, stages: &Stages) -> Result<Response> {
    let body = serde_json::to_vec(body).map_err(|error| Error::internal(error.to_string()))?;
    Ok(answer(Representation::Json, body, stages))
}

/// The nearest items by falling score.
#[derive(Serialize, ToSchema)]
pub(crate) struct Neighbors {
    /// The items.
    neighbors: Vec<NeighborJson>,
}

/// The nearest items of a stored one.
#[derive(Serialize, ToSchema)]
pub(crate) struct NeighborsOfItem {
    /// What was asked.
    query: ItemQuery,
    /// The items by falling score.
    neighbors: Vec<NeighborJson>,
}

/// The item whose neighbors were sought.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemQuery {
    /// Its id.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// How many neighbors were wanted.
    #[schema(example = 20)]
    k: usize,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ItemQueryOptions {
    id: Option<String>,
    include_self: bool,
}

/// Find the neighbors of a stored item.
///
/// It need not run the model, so it works with every gallery, whatever its vectors are.
#[utoipa::path(
    get,
    path = "/v1/knn",
    tag = "gallery",
    params(KnnOfItemParams, SearchParams, FilterParams, GalleryParams),
    responses(
        (status = 200, description = "The neighbors.", body = FromGallery<NeighborsOfItem>),
        GalleryProblems,
    )
)]
pub(crate) async fn find_neighbors_of_item(
    State(service): State<Service>,
    mut options: Options,
) -> Result<Response> {
    let ItemQueryOptions { id, include_self } = options.take()?;
    let search: SearchOptions = options.take()?;
    let filter = take_filter(&mut options)?;
    let GalleryOption { gallery } = options.take()?;
    options.finish()?;
    let id = id.ok_or_else(|| {
        Error::option(
            "id",
            "there is none; name the item whose neighbors are sought",
        )
    })?;
    let id = ItemId::new(id)?;
    let (binding, neighbors, stages) = service
        .neighbors_of_item(&gallery, &id, search, filter, include_self)
        .await?;
    let query = ItemQuery { id, k: search.k };
    let answer = NeighborsOfItem {
        query,
        neighbors: NeighborJson::list(neighbors),
    };
    respond(&FromGallery::new(gallery, binding, answer), &stages)
}

/// Find the neighbors of an image or a vector.
///
/// The image becomes a vector as those of the gallery did. Several images get a list `data` with an
/// answer or an `error` for each.
#[utoipa::path(
    post,
    path = "/v1/knn",
    tag = "gallery",
    params(SearchParams, FilterParams, GalleryParams, ImageParams, VectorParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImageOrVectorJson = "application/json"),
    )),
    responses(
        (status = 200, description = "The neighbors.", body = FromGallery<OneOrMore<Neighbors>>),
        SearchProblems,
    )
)]
pub(crate) async fn find_neighbors(
    State(service): State<Service>,
    request: SubjectRequest,
) -> Result<Response> {
    let SubjectRequest {
        subjects,
        mut options,
        admission: _admission,
    } = request;
    let search: SearchOptions = options.take()?;
    let filter = take_filter(&mut options)?;
    let GalleryOption { gallery } = options.take()?;
    let image = options.take_image()?;
    let vectors: VectorOptions = options.take()?;
    options.finish()?;
    let found = service
        .neighbors(&gallery, subjects, (&image, &vectors), search, filter)
        .await?;
    let Answers {
        binding,
        outcomes,
        stages,
    } = found;
    let json = |neighbors| Neighbors {
        neighbors: NeighborJson::list(neighbors),
    };
    let outcomes = outcomes
        .into_iter()
        .map(|outcome| outcome.map(json))
        .collect();
    FromGallery::respond(gallery, binding, outcomes, &stages)
}
