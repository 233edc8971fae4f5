//! The served models: `GET /v1/models` and `/v1/models/{id}`, and [`loading`].

pub(crate) mod loading;

use std::time::UNIX_EPOCH;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    engine::{Engine, EngineState},
    error::Error,
    http::{openapi::GalleryProblems, response::problem::openai_response},
    service::{self, Service},
};

/// The served models.
#[derive(Serialize, ToSchema)]
pub(crate) struct Models {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// One entry per model, the default one first.
    data: Vec<Model>,
}

/// A served model, and how it runs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    /// Name.
    #[schema(example = "dinov2-small")]
    id: String,
    /// Always `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// Time at which the server began to load it, in seconds since 1970.
    #[schema(example = 1_790_000_000)]
    created: u64,
    /// Always `dinoserve`.
    #[schema(example = "dinoserve")]
    owned_by: &'static str,
    /// Description in one sentence.
    summary: String,
    /// Warning to read before relying on its features.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    /// Family: `dino`, `dinov2`, `dinov3`, or `vit` for those trained with labels.
    #[schema(example = "dinov2")]
    family: String,
    /// License of its weights.
    #[schema(example = "Apache-2.0")]
    licence: String,
    /// Fingerprint of its features.
    fingerprint: String,
    /// Precision of its weights.
    #[schema(example = "fp32")]
    precision: String,
    /// `ready`, `loading`, or `failed` while it cannot run.
    #[schema(example = "ready")]
    state: &'static str,
    /// Whether it answers requests that name no model.
    default: bool,
    /// Execution provider that it runs on. Absent while it is not ready.
    #[schema(example = "cpu")]
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// Size of its weights, in bytes.
    #[schema(example = 88_000_000)]
    weight_bytes: u64,
    /// Growth of the server's memory while it was loaded, in bytes. Absent while it is loading, and
    /// where the system does not tell.
    #[schema(example = 140_000_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// Width of a token.
    #[schema(example = 384)]
    dim: usize,
    /// Number of attention heads.
    #[schema(example = 6)]
    heads: usize,
    /// Number of blocks.
    #[schema(example = 12)]
    depth: usize,
    /// Number of register tokens.
    registers: usize,
    /// Side of a patch, in pixels.
    #[schema(example = 14)]
    patch: usize,
    /// Default `size` for embeddings.
    #[schema(example = 224)]
    embed_size: usize,
    /// Default `size` for maps.
    #[schema(example = 518)]
    map_size: usize,
}

impl Model {
    fn new(engine: &Engine, models: &service::Models) -> Self {
        let spec = engine.spec();
        let (state, provider) = match engine.state() {
            EngineState::Ready(plan) => ("ready", Some(plan.provider())),
            EngineState::Loading => ("loading", None),
            EngineState::Failed(_) => ("failed", None),
        };
        let created = engine.started().duration_since(UNIX_EPOCH);
        Self {
            id: spec.name.clone(),
            object: "model",
            created: created.unwrap_or_default().as_secs(),
            owned_by: "dinoserve",
            summary: spec.summary.clone(),
            notice: spec.notice.clone(),
            family: spec.family.to_string(),
            licence: spec.licence.clone(),
            fingerprint: engine.fingerprint().to_owned(),
            precision: engine.precision().to_string(),
            state,
            default: models.default_model().name() == spec.name,
            provider,
            weight_bytes: engine.weight_bytes(),
            memory_bytes: engine.memory(),
            dim: spec.architecture.dim,
            heads: spec.architecture.heads,
            depth: spec.architecture.depth,
            registers: spec.architecture.registers,
            patch: spec.architecture.patch.pixels(),
            embed_size: spec.embed_size,
            map_size: spec.map_size,
        }
    }
}

/// List the models.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "server",
    responses((status = 200, description = "The models.", body = Models))
)]
pub(crate) async fn list_models(State(service): State<Service>) -> Json<Models> {
    let models = service.models();
    let served = models.all();
    let data = served
        .iter()
        .map(|model| Model::new(model.engine(), models));
    Json(Models {
        object: "list",
        data: data.collect(),
    })
}

/// Get a model.
///
/// The model is called by its name, or by that of its weights, such as `facebook/dinov2-small`.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "server",
    params(("id" = String, Path, description = "Name of the model.", example = "dinov2-small")),
    responses((status = 200, description = "The model.", body = Model), GalleryProblems)
)]
pub(crate) async fn get_model(
    State(service): State<Service>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    find_model(&service, id.map(|Path(id)| id))
}

/// As [`get_model`], for clients that do not escape the slash in a name like
/// `facebook/dinov2-small`.
pub(crate) async fn get_owned_model(
    State(service): State<Service>,
    id: Result<Path<(String, String)>, PathRejection>,
) -> Response {
    find_model(
        &service,
        id.map(|Path((owner, name))| format!("{owner}/{name}")),
    )
}

fn find_model(service: &Service, id: Result<String, PathRejection>) -> Response {
    let models = service.models();
    match id
        .map_err(|_| invalid_path())
        .and_then(|id| models.get(&id))
    {
        Ok(model) => Json(Model::new(model.engine(), models)).into_response(),
        Err(error) => openai_response(error.into()),
    }
}

fn invalid_path() -> Error {
    Error::malformed("the path is not valid: percent-decoded, it must be UTF-8")
}
