//! `POST /v1/classify`.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    gallery::{Label, ProbeName},
    http::{
        api::{
            gallery::{
                GalleryOption, NeighborJson,
                knn::{FromGallery, OneOrMore, respond},
                schema::{
                    FilterParams, GalleryParams, ImageOrVectorJson, ProbeParam, SearchParams,
                    SearchProblems, VectorParams, VoteParams,
                },
                take_filter,
            },
            schema::{File, ImageParams, ImagesForm},
        },
        request::{body::SubjectRequest, options::Options},
    },
    service::{
        Answers, Classification, QueryInput, SearchOptions, Service, VectorOptions, VoteOptions,
    },
};

/// What an image shows.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassificationJson {
    /// The most probable class, of equals the first by name; null if no neighbor had a vote, or if
    /// the probe finds none probable enough: unknown.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// The classes by falling probability.
    probabilities: Vec<Probability>,
    /// The neighbors that decided; absent if a probe did.
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbors: Option<Vec<NeighborJson>>,
}

/// How probable a class is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Probability {
    /// The class.
    #[schema(value_type = String, example = "cat")]
    label: Label,
    /// Its share of the vote, or its probability as the probe sees it; all sum to 1.
    #[schema(example = 0.87)]
    probability: f32,
}

impl From<Classification> for ClassificationJson {
    fn from(classification: Classification) -> Self {
        let Classification {
            label,
            probabilities,
            neighbors,
        } = classification;
        let json = |(label, probability)| Probability { label, probability };
        let probabilities = probabilities.into_iter().map(json).collect();
        Self {
            label,
            probabilities,
            neighbors: neighbors.map(NeighborJson::list),
        }
    }
}

/// What a probe says.
#[derive(Serialize, ToSchema)]
pub(crate) struct FromProbe {
    /// The model whose features the probe takes.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Identifies these features.
    fingerprint: String,
    /// The probe.
    #[schema(value_type = String, example = "birds")]
    probe: ProbeName,
    #[serde(flatten)]
    answer: OneOrMore<ClassificationJson>,
}

/// Who decides, if it is not the neighbors.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ProbeOption {
    probe: Option<ProbeName>,
}

/// When a probe is sure enough.
#[derive(Deserialize, Default)]
#[serde(default)]
struct LeastProbability {
    min_score: Option<f32>,
}

/// The answer of the neighbors, or of a probe.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes; each is written by itself")]
pub(crate) enum ClassificationAnswer {
    Neighbors(FromGallery<OneOrMore<ClassificationJson>>),
    Probe(FromProbe),
}

/// Classify an image or a vector.
///
/// By the vote of its `k` nearest neighbors that have a label, or by a trained probe. Several
/// images get a list `data` with an answer or an `error` for each.
#[utoipa::path(
    post,
    path = "/v1/classify",
    tag = "gallery",
    params(ProbeParam, VoteParams, SearchParams, FilterParams, GalleryParams, ImageParams, VectorParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImageOrVectorJson = "application/json"),
    )),
    responses(
        (status = 200, description = "The class.", body = ClassificationAnswer),
        SearchProblems,
    )
)]
pub(crate) async fn classify(
    State(service): State<Service>,
    request: SubjectRequest,
) -> Result<Response> {
    let SubjectRequest {
        subjects,
        mut options,
        admission: _admission,
    } = request;
    let ProbeOption { probe } = options.take()?;
    if let Some(probe) = probe {
        return classify_by_probe(&service, probe, subjects, options).await;
    }
    let image = options.take_image()?;
    let vote: VoteOptions = options.take()?;
    let search: SearchOptions = options.take()?;
    let filter = take_filter(&mut options)?;
    let GalleryOption { gallery } = options.take()?;
    let vectors: VectorOptions = options.take()?;
    options.finish()?;
    let found = service
        .classify(&gallery, subjects, (&image, &vectors), search, filter, vote)
        .await?;
    let Answers {
        binding,
        outcomes,
        stages,
    } = found;
    let outcomes = outcomes
        .into_iter()
        .map(|outcome| outcome.map(ClassificationJson::from))
        .collect();
    FromGallery::respond(gallery, binding, outcomes, &stages)
}

async fn classify_by_probe(
    service: &Service,
    probe: ProbeName,
    subjects: Vec<QueryInput>,
    mut options: Options,
) -> Result<Response> {
    const OF_NEIGHBORS: [&str; 9] = [
        "vote",
        "temperature",
        "k",
        "exact",
        "gallery",
        "label",
        "where",
        "pooling",
        "layers",
    ];
    if let Some(name) = OF_NEIGHBORS.iter().find(|name| options.holds(name)) {
        let detail = "does not go with `probe`: it is about neighbors, and a probe asks none; leave one of the two out";
        return Err(Error::option(name, detail));
    }
    let image = options.take_image()?;
    let LeastProbability { min_score } = options.take()?;
    options.finish()?;
    let found = service
        .classify_by_probe(&probe, subjects, &image, min_score)
        .await?;
    let Answers {
        binding,
        outcomes,
        stages,
    } = found;
    let outcomes = outcomes
        .into_iter()
        .map(|outcome| outcome.map(ClassificationJson::from))
        .collect();
    let answer = OneOrMore::new(outcomes)?;
    respond(
        &FromProbe {
            model: binding.model.name,
            fingerprint: binding.model.fingerprint.to_string(),
            probe,
            answer,
        },
        &stages,
    )
}
