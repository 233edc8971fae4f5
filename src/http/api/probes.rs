//! `/v1/probes`: linear probes, trained on galleries.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::Error,
    features::probe::TrainingOptions,
    gallery::{GalleryName, ItemFilter, ProbeName},
    http::{
        AppState, Result,
        api::{
            gallery::params::FilterParams,
            job::{TrainedJson, TrainedList, WaitParams, answer_job},
        },
        openapi::{GalleryProblems, SearchProblems},
        request::{body::OptionsRequest, model::ModelParams, options::Options, path::NamePath},
    },
    service::{ModelChoice, ProbeFeatures, ProbePlan, Service, StoredProbe},
};

/// A probe and the state of its training.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProbeJson {
    #[serde(flatten)]
    state: TrainedJson,
    /// The stored probe, which `POST /v1/classify?probe=` uses. It stays while a new probe of the
    /// same name is being trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<StoredProbeJson>,
}

/// A trained probe.
#[derive(Serialize, ToSchema)]
struct StoredProbeJson {
    /// Name of the gallery that it was trained on.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Name of the model of its features.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of these features.
    fingerprint: String,
    /// Features that it uses: `cls_mean` or `cls`.
    #[schema(value_type = String, example = "cls_mean")]
    features: ProbeFeatures,
    /// Width of these features.
    #[schema(example = 768)]
    width: usize,
    /// Accuracy in cross-validation, from 0 to 1.
    #[schema(example = 0.93)]
    accuracy: f64,
    /// Strength of the L2 penalty on its weights.
    #[schema(example = 100.0)]
    l2: f64,
    /// Whether the training converged. If not, a larger `l2` helps.
    converged: bool,
    /// Labels that it distinguishes.
    classes: Vec<String>,
    /// Number of items that it was trained on.
    examples: usize,
    /// Number of items that were skipped because they have no label.
    unlabelled: u64,
    /// Number of items that were skipped because they were stored as vectors, without the features
    /// that a probe needs.
    without_features: u64,
    /// Time of the training, in milliseconds since 1970.
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

/// Options of a training, in JSON or in the query.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct TrainingParams {
    /// Name of the probe: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`. The first is a letter or
    /// digit. Required.
    #[param(value_type = String, example = "birds")]
    name: Option<ProbeName>,
    /// Name of the gallery to train on.
    #[param(value_type = String, default = "default", example = "default")]
    gallery: GalleryName,
    /// Features to use: CLS and the mean of the patch tokens, or CLS alone.
    #[param(inline)]
    features: ProbeFeatures,
    /// Strength of the L2 penalty on the weights. The objective is that of scikit-learn's
    /// `LogisticRegression` with `C = 1/l2`. By default, cross-validation chooses one of 100000,
    /// 10000, … 0.01.
    #[param(minimum = 0.000001, maximum = 1_000_000_000.0, example = 100.0)]
    l2: Option<f64>,
    /// Number of folds of the cross-validation. It is reduced to the number of items in the
    /// smallest class.
    #[param(minimum = 2, maximum = 20, default = 5)]
    folds: Option<usize>,
}

impl TrainingParams {
    fn plan(self, filter: Option<ItemFilter>) -> Result<ProbePlan> {
        let detail = "required: a name for the probe, such as \"birds\"";
        let folds = self.folds.unwrap_or(TrainingOptions::default().folds);
        Ok(ProbePlan {
            name: self.name.ok_or_else(|| Error::option("name", detail))?,
            gallery: self.gallery,
            features: self.features,
            options: TrainingOptions {
                l2: self.l2,
                folds,
                ..TrainingOptions::default()
            },
            filter,
        })
    }
}

/// A training in JSON. The options may also be in the query.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"name": "birds", "gallery": "default", "features": "cls_mean"}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct ProbePlanJson {
    /// Name of the probe.
    name: String,
    /// Any of the other options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// Train a probe.
///
/// Fits a softmax regression to the labeled items of a gallery that were stored as images. The
/// training runs in the background with low priority, one at a time. A probe with the same name is
/// replaced when the training succeeds.
#[utoipa::path(
    post,
    path = "/v1/probes",
    tag = "gallery",
    params(ModelParams, TrainingParams, WaitParams, FilterParams),
    request_body(content((ProbePlanJson = "application/json"))),
    responses(
        (
            status = 202, description = "The training has begun. `Location` is the probe's URL.",
            body = ProbeJson,
        ),
        (status = 200, description = "With `wait`: the probe is ready.", body = ProbeJson),
        SearchProblems,
    )
)]
pub(crate) async fn train_probe(
    State(state): State<AppState>,
    OptionsRequest(mut options): OptionsRequest,
) -> Result<Response> {
    let service = &state.service;
    let model = options.choose_model(service)?;
    let params: TrainingParams = options.take()?;
    let wait: WaitParams = options.take()?;
    let filter = options.take::<FilterParams>()?.filter()?;
    options.reject_unknown()?;
    let plan = params.plan(filter)?;
    let name = plan.name.clone();
    let training = service.probes()?.train(&model, plan).await?;
    let ended = wait.wait(&state, &training).await?;
    let probe = probe_json(service, &model, &name).await?;
    Ok(answer_job(ended, (&name).into(), probe))
}

/// List the probes.
#[utoipa::path(
    get,
    path = "/v1/probes",
    tag = "gallery",
    responses(
        (status = 200, description = "The probes, ordered by name.", body = TrainedList),
        GalleryProblems,
    )
)]
pub(crate) async fn list_probes(
    State(service): State<Service>,
    options: Options,
) -> Result<Json<TrainedList>> {
    options.reject_unknown()?;
    let probes = service.probes()?.list().await?;
    Ok(Json(TrainedList::new(probes)))
}

/// Get a probe and the progress of its training.
#[utoipa::path(
    get,
    path = "/v1/probes/{name}",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the probe.", example = "birds"),
        ModelParams,
    ),
    responses((status = 200, description = "The probe.", body = ProbeJson), GalleryProblems)
)]
pub(crate) async fn get_probe(
    State(service): State<Service>,
    NamePath(name): NamePath<ProbeName>,
    mut options: Options,
) -> Result<Json<ProbeJson>> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    probe_json(&service, &model, &name).await
}

/// Delete a probe. Its training is stopped.
#[utoipa::path(
    delete,
    path = "/v1/probes/{name}",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the probe.", example = "birds"),
        ModelParams,
    ),
    responses((status = 204, description = "The probe is deleted."), GalleryProblems)
)]
pub(crate) async fn delete_probe(
    State(service): State<Service>,
    NamePath(name): NamePath<ProbeName>,
    mut options: Options,
) -> Result<StatusCode> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let probes = service.probes()?;
    if model.is_named() {
        probes.get(&model, &name).await?;
    }
    probes.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn probe_json(
    service: &Service,
    model: &ModelChoice,
    name: &ProbeName,
) -> Result<Json<ProbeJson>> {
    let (state, stored) = service.probes()?.get(model, name).await?;
    Ok(Json(ProbeJson {
        state: TrainedJson::new(name.as_str(), state),
        probe: stored.map(StoredProbeJson::from),
    }))
}
