//! `/v1/probes`: linear probes, trained on galleries.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    features::probe::{Stage, TrainingOptions},
    gallery::{GalleryName, ProbeName},
    http::{
        AppState,
        api::gallery::{
            NamePath,
            schema::{FilterParams, GalleryProblems, ProbeParams, ProbePlanJson, SearchProblems},
            take_filter,
        },
        request::{body::OptionsRequest, options::Options},
        response::problem::{self, Problem},
    },
    service::{ProbeFeatures, ProbePlan, ProbeState, Service, StoredProbe},
};

/// A probe, and what is going on with it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProbeJson {
    #[serde(flatten)]
    state: ProbeStateJson,
    /// What is stored of it: what `POST /v1/classify?probe=` uses, also while a new one of the name
    /// is being trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<StoredProbeJson>,
}

/// The state of a probe.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProbeStateJson {
    /// Its name.
    #[schema(value_type = String, example = "birds")]
    name: ProbeName,
    /// `training`, `ready` or `failed`.
    #[schema(example = "training")]
    state: &'static str,
    /// How far its training is, while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<TrainingJson>,
    /// Why its last training failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// How far a training is.
#[derive(Serialize, ToSchema)]
struct TrainingJson {
    /// `reading` items, `validating` strengths of the penalty (fits that are done), or `fitting`
    /// (evaluations that are done).
    #[schema(value_type = String, example = "validating")]
    stage: Stage,
    /// How much of the stage is done.
    #[schema(example = 12)]
    done: usize,
    /// Of how much, if that is known.
    #[schema(example = 40)]
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
}

/// A trained probe.
#[derive(Serialize, ToSchema)]
struct StoredProbeJson {
    /// The gallery that it learned from.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// The model whose features it takes.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Identifies these features.
    fingerprint: String,
    /// What it takes of them.
    #[schema(value_type = String, example = "cls_mean")]
    features: ProbeFeatures,
    /// Width of what it takes.
    #[schema(example = 768)]
    width: usize,
    /// Share of the items that were classified rightly while they were held out of the training.
    #[schema(example = 0.93)]
    accuracy: f64,
    /// Strength of the penalty on its weights.
    #[schema(example = 100.0)]
    l2: f64,
    /// Whether the training came to its end; if not, a larger `l2` makes it easier.
    converged: bool,
    /// The labels that it tells apart.
    classes: Vec<String>,
    /// How many items it was trained on.
    examples: usize,
    /// Items that were left out because they have no label.
    unlabelled: u64,
    /// Items that were left out because they came as vectors, without the features that a probe
    /// needs.
    without_features: u64,
    /// When it was trained, in milliseconds since 1970.
    trained_ms: u64,
}

impl From<StoredProbe> for StoredProbeJson {
    fn from(StoredProbe { probe, about }: StoredProbe) -> Self {
        Self {
            gallery: about.gallery,
            model: about.binding.model.name,
            fingerprint: about.binding.model.fingerprint.to_string(),
            features: about.features,
            width: probe.width(),
            accuracy: probe.accuracy,
            l2: probe.l2,
            converged: probe.converged,
            classes: probe.classes,
            examples: probe.examples,
            unlabelled: about.unlabelled,
            without_features: about.without_features,
            trained_ms: about.trained_ms,
        }
    }
}

impl ProbeStateJson {
    fn new(name: ProbeName, state: &ProbeState) -> Self {
        let word = state.name();
        let (training, error) = match state {
            ProbeState::Training(at) => (
                Some(TrainingJson {
                    stage: at.stage,
                    done: at.done,
                    total: at.total,
                }),
                None,
            ),
            ProbeState::Failed(error) => (None, Some(Problem::new(error))),
            ProbeState::Ready => (None, None),
        };
        Self {
            name,
            state: word,
            training,
            error,
        }
    }
}

/// All probes.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProbeList {
    /// By name.
    data: Vec<ProbeStateJson>,
}

/// What is to be trained.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ProbeOptions {
    name: Option<ProbeName>,
    gallery: GalleryName,
    features: ProbeFeatures,
    l2: Option<f64>,
    folds: Option<usize>,
    wait: bool,
}

/// Train a probe.
///
/// Softmax regression on the labeled items of a gallery that were stored as images, in the
/// background. One training goes on at a time, behind the requests. A probe of the same name is
/// replaced when the new one is ready.
#[utoipa::path(
    post,
    path = "/v1/probes",
    tag = "gallery",
    params(ProbeParams, FilterParams),
    request_body(content((ProbePlanJson = "application/json"))),
    responses(
        (status = 202, description = "The training has begun; `Location` tells where to look at it.", body = ProbeJson),
        (status = 200, description = "With `wait`: the probe is ready.", body = ProbeJson),
        SearchProblems,
    )
)]
pub(crate) async fn train_probe(
    State(state): State<AppState>,
    request: OptionsRequest,
) -> Result<Response> {
    let OptionsRequest(mut options) = request;
    let ProbeOptions {
        name,
        gallery,
        features,
        l2,
        folds,
        wait,
    } = options.take()?;
    let filter = take_filter(&mut options)?;
    options.finish()?;
    let name = name.ok_or_else(|| {
        Error::option(
            "name",
            "there is none; give the probe one, such as \"birds\"",
        )
    })?;
    let folds = folds.unwrap_or(TrainingOptions::default().folds);
    let options = TrainingOptions { l2, folds };
    let plan = ProbePlan {
        name: name.clone(),
        gallery,
        features,
        options,
        filter,
    };
    let service = state.service();
    let training = service.train_probe(plan).await?;
    if wait {
        // What takes longer than a request may goes on, and is answered as if nobody had wanted to
        // wait.
        let patience = state.config.request_timeout.mul_f32(0.9);
        match tokio::time::timeout(patience, training.ended()).await {
            Ok(Ok(())) => return Ok(probe_json(&service, name).await?.into_response()),
            Ok(Err(error)) => return Ok(problem::response(&error)),
            Err(_) => {}
        }
    }
    let place = [(header::LOCATION, format!("/v1/probes/{name}"))];
    Ok((
        StatusCode::ACCEPTED,
        place,
        probe_json(&service, name).await?,
    )
        .into_response())
}

/// List the probes.
#[utoipa::path(
    get,
    path = "/v1/probes",
    tag = "gallery",
    responses((status = 200, description = "The probes.", body = ProbeList), GalleryProblems)
)]
pub(crate) async fn list_probes(
    State(service): State<Service>,
    options: Options,
) -> Result<Json<ProbeList>> {
    options.finish()?;
    let probes = service.probes().await?;
    let data = probes
        .into_iter()
        .map(|(name, state)| ProbeStateJson::new(name, &state))
        .collect();
    Ok(Json(ProbeList { data }))
}

/// Look up a probe, and how far its training is.
#[utoipa::path(
    get,
    path = "/v1/probes/{name}",
    tag = "gallery",
    params(("name" = String, Path, description = "The probe.", example = "birds")),
    responses((status = 200, description = "The probe.", body = ProbeJson), GalleryProblems)
)]
pub(crate) async fn get_probe(
    State(service): State<Service>,
    NamePath(name): NamePath<ProbeName>,
    options: Options,
) -> Result<Json<ProbeJson>> {
    options.finish()?;
    probe_json(&service, name).await
}

/// Delete a probe. Its training is ended if it goes on.
#[utoipa::path(
    delete,
    path = "/v1/probes/{name}",
    tag = "gallery",
    params(("name" = String, Path, description = "The probe.", example = "birds")),
    responses((status = 204, description = "It is gone."), GalleryProblems)
)]
pub(crate) async fn delete_probe(
    State(service): State<Service>,
    NamePath(name): NamePath<ProbeName>,
    options: Options,
) -> Result<StatusCode> {
    options.finish()?;
    service.remove_probe(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn probe_json(service: &Service, name: ProbeName) -> Result<Json<ProbeJson>> {
    let (of_training, stored) = service.probe(&name).await?;
    let state = ProbeStateJson::new(name, &of_training);
    Ok(Json(ProbeJson {
        state,
        probe: stored.map(StoredProbeJson::from),
    }))
}
