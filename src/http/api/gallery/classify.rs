//! `POST /v1/classify`.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::{FromGallery, NeighborJson, OneOrMore, answer_each},
    params::{
        FilterParams, GalleryParams, ImageOrVectorJson, SearchParams, VectorParams,
        take_input_options, take_query,
    },
};
use crate::{
    features::vote::Vote,
    gallery::{Label, ProbeName},
    http::{
        Result,
        api::schema::ImageParams,
        openapi::SearchProblems,
        request::{body::QueryRequest, model::ModelParams},
        response::answer::json,
    },
    service::{Answers, Classification, ModelChoice, Service, VoteOptions},
};

/// Name of a probe.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProbeParam {
    /// Name of a probe, which then classifies instead of neighbors. It can be combined only with
    /// `min_score` and the options of images. Instead of an image, a probe accepts as `vector` the
    /// features that it was trained on: those of `/v1/embed?normalize=false` with
    /// `pooling=cls_mean` or `pooling=cls`.
    #[param(value_type = String, example = "birds")]
    probe: Option<ProbeName>,
}

/// Options of the vote of neighbors.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct VoteParams {
    /// Weight of a neighbor's vote. `weighted`: exp(score / temperature). `majority`: the same for
    /// all.
    #[param(inline)]
    vote: Vote,
    /// Temperature of the weights. The lower it is, the more the nearest neighbors count.
    #[param(exclusive_minimum = 0.0, default = 0.07)]
    temperature: f32,
}

impl Default for VoteParams {
    fn default() -> Self {
        let VoteOptions {
            vote, temperature, ..
        } = VoteOptions::default();
        Self { vote, temperature }
    }
}

/// Minimum score.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct MinScoreParam {
    /// Minimum score of a neighbor to have a vote. With `probe`, the minimum probability of a
    /// class. The label is null if nothing reaches it.
    #[param(minimum = -1.0, maximum = 1.0)]
    min_score: Option<f32>,
}

/// Class of an image or vector.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassificationJson {
    /// The most probable class; of equal ones the first by name. Null if no neighbor had a vote, or
    /// if no class is probable enough for `min_score`.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// The classes, the most probable first.
    probabilities: Vec<Probability>,
    /// The neighbors that voted. Absent with `probe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbors: Option<Vec<NeighborJson>>,
}

/// Probability of a class.
#[derive(Serialize, ToSchema)]
pub(crate) struct Probability {
    /// The class.
    #[schema(value_type = String, example = "cat")]
    label: Label,
    /// Share of the vote, or probability by the probe. The probabilities of all classes sum to 1.
    #[schema(example = 0.87)]
    probability: f32,
}

impl From<Classification> for ClassificationJson {
    fn from(classification: Classification) -> Self {
        Self {
            label: classification.label,
            probabilities: classification
                .probabilities
                .into_iter()
                .map(|(label, probability)| Probability { label, probability })
                .collect(),
            neighbors: classification.neighbors.map(NeighborJson::list),
        }
    }
}

/// An answer from a probe, with the model of its features.
#[derive(Serialize, ToSchema)]
pub(crate) struct FromProbe {
    /// Name of the model of the probe's features.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of these features.
    fingerprint: String,
    /// Name of the probe.
    #[schema(value_type = String, example = "birds")]
    probe: ProbeName,
    #[serde(flatten)]
    answer: OneOrMore<ClassificationJson>,
}

/// The answer from neighbors, or from a probe.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum ClassificationAnswer {
    Neighbors(FromGallery<OneOrMore<ClassificationJson>>),
    Probe(FromProbe),
}

/// Classify an image or a vector.
///
/// The class is the vote of the `k` nearest labeled neighbors, or the output of a trained probe.
/// The answer to several images is a list `data` with an answer or an `error` for each.
#[utoipa::path(
    post,
    path = "/v1/classify",
    tag = "gallery",
    params(
        ProbeParam, VoteParams, MinScoreParam, SearchParams, FilterParams, GalleryParams,
        ModelParams, ImageParams, VectorParams,
    ),
    request_body(content((ImageOrVectorJson = "application/json"))),
    responses(
        (status = 200, description = "The class.", body = ClassificationAnswer),
        SearchProblems,
    )
)]
pub(crate) async fn classify(
    State(service): State<Service>,
    mut request: QueryRequest,
) -> Result<Response> {
    let ProbeParam { probe } = request.options.take()?;
    let model = request.options.choose_model(&service)?;
    match probe {
        Some(probe) => classify_by_probe(&service, &model, probe, request).await,
        None => classify_by_neighbors(&service, &model, request).await,
    }
}

async fn classify_by_neighbors(
    service: &Service,
    model: &ModelChoice,
    request: QueryRequest,
) -> Result<Response> {
    let inputs = request.contents.0;
    let mut options = request.options;
    let VoteParams { vote, temperature } = options.take()?;
    let MinScoreParam { min_score } = options.take()?;
    let query = take_query(&mut options)?;
    let input_options = take_input_options(&mut options)?;
    options.reject_unknown()?;
    let vote = VoteOptions {
        vote,
        temperature,
        min_score,
    };
    let answers = service
        .galleries()?
        .classify(model, &query, inputs, &input_options, vote)
        .await?;
    answer_each::<_, ClassificationJson>(query.gallery, answers)
}

async fn classify_by_probe(
    service: &Service,
    model: &ModelChoice,
    probe: ProbeName,
    request: QueryRequest,
) -> Result<Response> {
    let inputs = request.contents.0;
    let mut options = request.options;
    options.reject::<VoteParams>("probe")?;
    options.reject::<SearchParams>("probe")?;
    options.reject::<GalleryParams>("probe")?;
    options.reject::<FilterParams>("probe")?;
    options.reject::<VectorParams>("probe")?;
    let image = options.take::<ImageParams>()?.into();
    let MinScoreParam { min_score } = options.take()?;
    options.reject_unknown()?;
    let answers = service
        .probes()?
        .classify(model, &probe, inputs, &image, min_score)
        .await?;
    let Answers { binding, outcomes } = answers.value;
    let body = FromProbe {
        model: binding.model.name,
        fingerprint: binding.model.fingerprint.to_string(),
        probe,
        answer: OneOrMore::new(outcomes)?,
    };
    json(&body, &answers.stages)
}
