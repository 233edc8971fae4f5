//! `POST /v1/classify`.

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    AppState,
    body::SubjectRequest,
    gallery::{
        GalleryOption, NeighborJson,
        schema::{
            FilterParams, GalleryParams, ImageOrVectorJson, SearchParams, SearchProblems, VectorParams, VoteParams,
        },
        take_filter,
    },
    knn::{FromGallery, OneOrMore},
    schema::{File, ImageParams, ImagesForm},
};
use crate::{
    error::Result,
    gallery::Label,
    service::{Classification, Found, ImageOptions, SearchOptions, VectorOptions, VoteOptions},
};

/// What an image shows.
#[derive(Serialize, ToSchema)]
pub(super) struct ClassificationJson {
    /// The most probable class, of equals the first by name; null if no neighbour had a vote: unknown.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// The classes by falling probability.
    probabilities: Vec<Probability>,
    /// The neighbours that decided.
    neighbors: Vec<NeighborJson>,
}

/// How probable a class is.
#[derive(Serialize, ToSchema)]
pub(super) struct Probability {
    /// The class.
    #[schema(value_type = String, example = "cat")]
    label: Label,
    /// Its share of the vote; all sum to 1.
    #[schema(example = 0.87)]
    probability: f32,
}

impl From<Classification> for ClassificationJson {
    fn from(classification: Classification) -> Self {
        let Classification { label, probabilities, neighbors } = classification;
        let json = |(label, probability)| Probability { label, probability };
        let probabilities = probabilities.into_iter().map(json).collect();
        Self { label, probabilities, neighbors: NeighborJson::list(neighbors) }
    }
}

/// Classify an image or a vector.
///
/// By the vote of its `k` nearest neighbours that have a label. Several images get a list `data` with an answer or an
/// `error` for each.
#[utoipa::path(
    post,
    path = "/v1/classify",
    tag = "gallery",
    params(VoteParams, SearchParams, FilterParams, GalleryParams, ImageParams, VectorParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImageOrVectorJson = "application/json"),
    )),
    responses(
        (status = 200, description = "The class.", body = FromGallery<OneOrMore<ClassificationJson>>),
        SearchProblems,
    )
)]
pub(super) async fn classify(State(state): State<AppState>, request: SubjectRequest) -> Result<Response> {
    let SubjectRequest { subjects, mut options, admission: _admission } = request;
    let image: ImageOptions = options.take()?;
    // Who decides: another way than the vote would branch off here, with options of its own.
    let vote: VoteOptions = options.take()?;
    let search: SearchOptions = options.take()?;
    let filter = take_filter(&mut options)?;
    let GalleryOption { gallery } = options.take()?;
    let vectors: VectorOptions = options.take()?;
    options.finish()?;
    let found = state.service.classify(&gallery, subjects, (&image, &vectors), search, filter, vote).await?;
    let Found { binding, outcomes, stages } = found;
    let outcomes = outcomes.into_iter().map(|outcome| outcome.map(ClassificationJson::from)).collect();
    FromGallery::respond(gallery, binding, outcomes, &stages)
}
