//! `GET /v1/models` and `POST /v1/models/load`.

use std::fmt;

use axum::{Json, body::Body, extract::State};
use futures_util::TryFutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use strum::VariantNames;
use utoipa::ToSchema;

use crate::{
    engine::{Engine, EngineState},
    error::{Error, Kind, Result},
    http::{AppState, request::body::in_time, response::problem::Problem},
    onnx::Precision,
    service::{LoadPlan, Replaced, Service},
};

/// Most bytes of its request, which has two names.
const MOST_BYTES: usize = 64 << 10;

/// The models that this server runs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Models {
    /// One entry per model.
    data: Vec<Model>,
}

/// A model and how it runs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    /// Its name.
    #[schema(example = "dinov2-small")]
    id: String,
    /// What it is.
    summary: String,
    /// What to know before trusting its features.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    /// Licence of its weights.
    #[schema(example = "Apache-2.0")]
    licence: String,
    /// Identifies its features.
    fingerprint: String,
    /// Precision of its weights.
    #[schema(example = "fp32")]
    precision: String,
    /// Where it really runs; absent while it loads.
    #[schema(example = "cpu")]
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// Width of a token.
    #[schema(example = 384)]
    dim: usize,
    /// Attention heads.
    #[schema(example = 6)]
    heads: usize,
    /// Blocks.
    #[schema(example = 12)]
    depth: usize,
    /// Register tokens.
    registers: usize,
    /// Side of a patch in pixels.
    #[schema(example = 14)]
    patch: usize,
    /// Default `size` of embeddings.
    #[schema(example = 224)]
    embed_size: usize,
    /// Default `size` of maps.
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
        Self {
            id: spec.name.clone(),
            summary: spec.summary.clone(),
            notice: spec.notice.clone(),
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
#[utoipa::path(get, path = "/v1/models", tag = "server", responses((status = 200, description = "The models.", body = Models)))]
pub(crate) async fn list_models(State(service): State<Service>) -> Json<Models> {
    Json(Models {
        data: vec![Model::new(service.engine())],
    })
}

/// Which model is to be served.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadModel {
    /// Its name in the catalog.
    #[schema(example = "dinov2-small-focus")]
    model: String,
    /// Precision of its weights: `fp32`, `int8` or `fp16`; what the server was started with if it
    /// is not given.
    #[schema(example = "fp32")]
    precision: Option<String>,
}

/// The model that took over.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoadedModel {
    /// What is served now.
    model: Model,
    /// The fingerprint of the features before.
    fingerprint_before: String,
}

/// Replace the model.
///
/// The new model is pulled and converted if need be, brought up beside the old one and warmed up;
/// then it takes over. No request fails: those that have begun end with the old model. If the new
/// one cannot be served the old one stays. Galleries of another model's features answer 409 to
/// images from then on. With the name of the model that is served, its file is read anew. Loading
/// goes on when the client has gone.
#[utoipa::path(
    post,
    path = "/v1/models/load",
    tag = "server",
    request_body = LoadModel,
    responses(
        (status = 200, description = "The model is served.", body = LoadedModel),
        (status = 409, description = "Another model is being loaded.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The model cannot be served, and the old one stays; the detail tells why.", body = Problem,
            content_type = "application/problem+json"),
        (status = "4XX", description = "The request is at fault.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn load_model(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<LoadedModel>> {
    let wrong = |what: &dyn fmt::Display| {
        Error::new(Kind::Malformed, format!("send {{\"model\": NAME}}: {what}"))
    };
    let read = Limited::new(body, MOST_BYTES).collect().map_err(|error| {
        match error.is::<LengthLimitError>() {
            true => Error::new(
                Kind::TooLarge,
                format!("the body is larger than {MOST_BYTES} bytes"),
            ),
            false => wrong(&error),
        }
    });
    let body = in_time(&state.config, read).await?.to_bytes();
    let LoadModel { model, precision } =
        serde_json::from_slice(&body).map_err(|error| wrong(&error))?;
    let of_name = |name: String| {
        let known = Precision::VARIANTS.join(", ");
        name.parse::<Precision>()
            .map_err(|_| Error::option("precision", format!("{name:?} is none of {known}")))
    };
    let plan = LoadPlan {
        model,
        precision: precision.map(of_name).transpose()?,
    };
    let Replaced { engine, before } = state.live.load(plan).await?;
    Ok(Json(LoadedModel {
        model: Model::new(&engine),
        fingerprint_before: before,
    }))
}
