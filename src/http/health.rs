//! `GET /healthz`, `/readyz` and `/metrics`.

use std::time::Duration;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{AppState, problem::Problem};
use crate::{
    engine::EngineState,
    error::{Error, Kind, Result},
    telemetry,
};

/// The process runs.
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, description = "The process runs.", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The model answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// The model.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Where it runs.
    #[schema(example = "cpu")]
    provider: String,
}

/// The model answers: a real inference has succeeded.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    responses(
        (status = 200, description = "Requests are answered.", body = Ready),
        (status = 503, description = "Not yet, or never: the detail tells.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<Json<Ready>> {
    let engine = state.service.engine();
    match engine.state() {
        EngineState::Ready(plan) => Ok(Json(Ready { model: engine.spec().name.clone(), provider: plan.provider() })),
        EngineState::Loading => Err(Error::new(Kind::Unavailable, "the model is still loading")),
        EngineState::Failed(reason) => Err(Error::new(Kind::Unavailable, format!("the model cannot run: {reason}"))),
    }
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, description = "Prometheus's text format.", body = String)))]
pub(super) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let metrics = telemetry::metrics();
    metrics.queue_depth.set(state.service.engine().queued() as i64);
    metrics.cache_bytes.set(i64::try_from(state.service.cached_bytes()).unwrap_or(i64::MAX));
    // A store that is slow or away does not hold up the other metrics; they tell what was known last.
    if let Ok(store) = state.service.gallery()
        && let Ok(Ok(galleries)) = timeout(Duration::from_secs(1), store.galleries()).await
    {
        let counts = galleries.into_iter().map(|gallery| (gallery.name.into(), gallery.items)).collect();
        metrics.set_gallery_items(counts);
    }
    metrics.ready.set(i64::from(matches!(state.service.engine().state(), EngineState::Ready(_))));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}
