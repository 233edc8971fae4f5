//! `GET /v1/models`, `GET /v1/models/{id}` and `POST /v1/models/load`.

use std::{fmt::Display, time::UNIX_EPOCH};

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use futures_util::TryFutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use strum::VariantNames;
use utoipa::ToSchema;

use crate::{
    engine::{Engine, EngineState},
    error::{Error, Kind, shortened},
    http::{
        AppState, Rejection, Result,
        openapi::GalleryProblems,
        request::{body::in_time, json::without_bom},
        response::problem::{Problem, openai_response},
    },
    model::ModelSpec,
    onnx::Precision,
    service::{LoadPlan, Service},
};

/// Maximum size of a request to load a model, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Models of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Models {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// One entry per model.
    data: Vec<Model>,
}

/// A model, and how it runs.
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
    /// Execution provider that it runs on. Absent while the model is loading.
    #[schema(example = "cpu")]
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
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
    fn new(engine: &Engine) -> Self {
        let spec = engine.spec();
        let provider = match engine.state() {
            EngineState::Ready(plan) => Some(plan.provider()),
            EngineState::Loading | EngineState::Failed(_) => None,
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
            provider,
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
    Json(Models {
        object: "list",
        data: vec![Model::new(service.engine())],
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
    let invalid = |_| Error::malformed("the path is not valid: percent-decoded, it must be UTF-8");
    let found = id
        .map_err(invalid)
        .and_then(|id| check_name(service.engine().spec(), &id));
    match found {
        Ok(()) => Json(Model::new(service.engine())).into_response(),
        Err(error) => openai_response(error.into()),
    }
}

/// Rejects the name of another model than the one that is served.
pub(crate) fn check_name(spec: &ModelSpec, name: &str) -> Result<(), Error> {
    if spec.is_called(name) {
        return Ok(());
    }
    let name = shortened(name);
    let detail = format!("unknown model {name:?}; this server runs {:?}", spec.name);
    Err(Error::new(Kind::NotFound, detail))
}

/// The model to serve.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadModel {
    /// Name in the catalog.
    #[schema(example = "dinov2-small-focus")]
    model: String,
    /// Precision of its weights: `fp32`, `int8` or `fp16`. The default is the precision that the
    /// server was started with.
    #[schema(example = "fp32")]
    precision: Option<String>,
}

/// Result of replacing the model.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoadedModel {
    /// The new model.
    model: Model,
    /// Fingerprint of the previous model's features.
    fingerprint_before: String,
}

/// Replace the model.
///
/// Downloads and converts the new model if necessary, starts it next to the old one, warms it up,
/// and switches over. No request fails: running requests finish with the old model. If the new
/// model cannot be served, the old one stays. After the switch, galleries with features of another
/// model answer 409 to images. The name of the current model reloads its file. Loading continues if
/// the client disconnects.
#[utoipa::path(
    post,
    path = "/v1/models/load",
    tag = "server",
    request_body = LoadModel,
    responses(
        (status = 200, description = "The model is served.", body = LoadedModel),
        (
            status = 409, description = "Another model is being loaded.",
            body = Problem, content_type = "application/problem+json",
        ),
        (
            status = 422,
            description = "The model cannot be served, and the old one stays; `detail` says why.",
            body = Problem, content_type = "application/problem+json",
        ),
        (
            status = "4XX", description = "The request is invalid.",
            body = Problem, content_type = "application/problem+json",
        ),
    )
)]
pub(crate) async fn load_model(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<LoadedModel>> {
    let read = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let detail = format!("the body is larger than the limit of {MAX_BODY_BYTES} bytes");
                Error::new(Kind::TooLarge, detail).into()
            } else {
                malformed(error)
            }
        });
    let body = in_time(&state.config, read).await?.to_bytes();
    let LoadModel { model, precision } =
        serde_json::from_slice(without_bom(&body)).map_err(malformed)?;
    let plan = LoadPlan {
        model,
        precision: precision.as_deref().map(parse_precision).transpose()?,
    };
    let (engine, before) = state.live.load(plan).await?;
    Ok(Json(LoadedModel {
        model: Model::new(&engine),
        fingerprint_before: before,
    }))
}

fn malformed(error: impl Display) -> Rejection {
    let detail = format!("the body is not {{\"model\": NAME}}: {error}");
    Error::malformed(detail).into()
}

fn parse_precision(name: &str) -> Result<Precision, Error> {
    name.parse().map_err(|_| {
        let known = Precision::VARIANTS.join(", ");
        let name = shortened(name);
        let detail = format!("unknown: {name:?}; expected one of {known}");
        Error::option("precision", detail)
    })
}
