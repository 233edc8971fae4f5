//! `GET /v1/models`.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use crate::{engine::EngineState, vision::PATCH};

/// The models that this server runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Models {
    /// One entry per model.
    data: Vec<Model>,
}

/// A model and how it runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Model {
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

/// List the models.
#[utoipa::path(get, path = "/v1/models", tag = "server", responses((status = 200, description = "The models.", body = Models)))]
pub(super) async fn list_models(State(state): State<AppState>) -> Json<Models> {
    let engine = state.service.engine();
    let spec = engine.spec();
    let provider = match engine.state() {
        EngineState::Ready(plan) => Some(plan.provider()),
        EngineState::Loading | EngineState::Failed(_) => None,
    };
    Json(Models {
        data: vec![Model {
            id: spec.name.clone(),
            summary: spec.summary.clone(),
            notice: spec.notice.clone(),
            licence: spec.licence.clone(),
            fingerprint: engine.fingerprint().to_owned(),
            precision: engine.precision().to_string(),
            provider,
            dim: spec.dim,
            heads: spec.heads,
            depth: spec.depth,
            registers: spec.registers,
            patch: PATCH,
            embed_size: spec.embed_size,
            map_size: spec.map_size,
        }],
    })
}
