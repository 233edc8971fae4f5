//! `GET /healthz`, `/readyz` and `/metrics`.

use std::time::Duration;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{
    engine::EngineState,
    error::{Error, Kind, Result},
    gallery::GalleryInfo,
    http::{AppState, response::problem::Problem},
    service::Service,
    telemetry::{self, GalleryFacts},
};

/// The process runs.
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, description = "The process runs.", body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The model answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
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
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<Json<Ready>> {
    if state.is_stopping() {
        return Err(Error::new(Kind::Unavailable, "the server is stopping"));
    }
    let service = state.service();
    let engine = service.engine();
    let plan = engine.state().require_ready()?;
    Ok(Json(Ready {
        model: engine.spec().name.clone(),
        provider: plan.provider(),
    }))
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, description = "Prometheus's text format.", body = String)))]
pub(crate) async fn metrics(State(service): State<Service>) -> impl IntoResponse {
    let metrics = telemetry::metrics();
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let engine = service.engine();
    metrics.queue_depth.set(count(engine.queued()));
    metrics.queue_capacity.set(count(engine.queue_depth()));
    metrics
        .cache_bytes
        .set(i64::try_from(service.extractor.cached_bytes()).unwrap_or(i64::MAX));
    // A store that is slow or away does not hold up the other metrics; they tell what was known
    // last.
    if let Ok(store) = service.gallery()
        && let Ok(Ok(galleries)) = timeout(Duration::from_secs(1), store.galleries()).await
    {
        let facts = |GalleryInfo {
                         name,
                         binding,
                         items,
                         ..
                     }: GalleryInfo| {
            GalleryFacts {
                name: name.into(),
                items,
                model: binding.model.name,
                fingerprint: binding.model.fingerprint.to_string(),
                dim: binding.dim,
            }
        };
        metrics.set_galleries(galleries.into_iter().map(facts).collect());
    }
    metrics
        .ready
        .set(i64::from(matches!(engine.state(), EngineState::Ready(_))));
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        metrics.render(),
    )
}
