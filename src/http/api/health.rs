//! `GET /healthz`, `/readyz` and `/metrics`.

use std::time::Duration;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{
    engine::EngineState,
    error::{Error, Kind},
    http::{AppState, Result, response::problem::Problem},
    service::Service,
    telemetry::{self, GalleryFacts},
};

/// Check that the process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "server",
    responses((status = 200, description = "The process runs.", body = String))
)]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The model that answers requests.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Execution provider that it runs on.
    #[schema(example = "cpu")]
    provider: String,
}

/// Check that the server can answer requests.
///
/// The model is ready once an inference has succeeded.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    responses(
        (status = 200, description = "The server can answer requests.", body = Ready),
        (
            status = 503,
            description = "The model is loading or cannot run, or the server is stopping. `detail` \
                says which.",
            body = Problem, content_type = "application/problem+json",
        ),
    )
)]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<Json<Ready>> {
    if state.is_stopping() {
        return Err(Error::new(Kind::Unavailable, "the server is stopping").into());
    }
    let service = state.service();
    let engine = service.engine();
    let plan = engine.state().require_ready()?;
    Ok(Json(Ready {
        model: engine.spec().name.clone(),
        provider: plan.provider(),
    }))
}

/// Get metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses((status = 200, description = "Metrics in Prometheus's text format.", body = String))
)]
pub(crate) async fn metrics(State(service): State<Service>) -> impl IntoResponse {
    let metrics = telemetry::metrics();
    let engine = service.engine();
    metrics.queue_depth.set(gauge(engine.queued()));
    metrics.queue_capacity.set(gauge(engine.queue_depth()));
    metrics
        .cache_bytes
        .set(gauge(service.extractor.cached_bytes().await));
    // A store that is slow or unreachable does not delay the other metrics. Its galleries keep
    // their last known values then.
    if let Ok(stored) = service.galleries()
        && let Ok(Ok(galleries)) = timeout(Duration::from_secs(1), stored.store().galleries()).await
    {
        let facts = galleries.into_iter().map(|gallery| GalleryFacts {
            name: gallery.name.into(),
            items: gallery.items,
            model: gallery.binding.model.name,
            fingerprint: gallery.binding.model.fingerprint.to_string(),
            dim: gallery.binding.dim,
        });
        metrics.set_galleries(facts.collect());
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

fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
