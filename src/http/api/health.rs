//! `GET /healthz`, `/readyz` and `/metrics`.

use std::time::Duration;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};
use utoipa::ToSchema;

use crate::{
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

/// The model that answers requests which name none.
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
/// A model is ready once an inference has succeeded. The server is ready when all its models are.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    responses(
        (status = 200, description = "The server can answer requests.", body = Ready),
        (
            status = 503,
            description = "A model is loading or cannot run, or the server is stopping. `detail` \
                says which.",
            body = Problem, content_type = "application/problem+json",
        ),
    )
)]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<Json<Ready>> {
    if state.is_stopping() {
        return Err(Error::new(Kind::Unavailable, "the server is stopping").into());
    }
    let models = state.service.models();
    models.all_ready()?;
    let model = models.default_model();
    let plan = model.engine().state().require_ready()?;
    Ok(Json(Ready {
        model: model.name().to_owned(),
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
    // The gauges of models and galleries are set again, and no other scrape may see a part of them.
    static SCRAPE: Mutex<()> = Mutex::const_new(());
    let _scrape = SCRAPE.lock().await;
    let metrics = telemetry::metrics();
    service.models().set_metrics();
    let cached = service.models().default_model().cached_bytes().await;
    metrics
        .cache_bytes
        .set(i64::try_from(cached).unwrap_or(i64::MAX));
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
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        metrics.render(),
    )
}
