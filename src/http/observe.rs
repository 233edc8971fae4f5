//! What happens around every request: its id, its time limit, its line in the log, its place in the metrics.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};

use tracing::Instrument;

use super::{AppState, gallery::snapshot};
use crate::{
    error::{Error, Kind},
    telemetry,
};

/// An id that a client gives is used if it can stand in a log line.
pub(super) async fn drop_unfit_request_id(mut request: Request) -> Request {
    let fit = |id: &[u8]| !id.is_empty() && id.len() <= 128 && id.iter().all(u8::is_ascii_graphic);
    if request.headers().get("x-request-id").is_some_and(|id| !fit(id.as_bytes())) {
        request.headers_mut().remove("x-request-id");
    }
    request
}

/// Answers with 504 what takes longer than the limit. The work behind it is dropped from the queue. Snapshots have a limit of
/// their own.
pub(super) async fn time_limit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str() == snapshot::PATH) {
        return next.run(request).await;
    }
    let limit = state.config.request_timeout;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the answer was not ready within {} s", limit.as_secs());
            Error::new(Kind::Timeout, detail)
                .with_limit("request_timeout", limit.as_secs(), "--request-timeout")
                .into_response()
        }
    }
}

/// Counts and logs.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // Only known routes become labels, so that no client can make up new ones.
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str()).to_owned();
    let id = header_text(&request, "x-request-id");
    let bytes =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let span = tracing::info_span!("request", id);
    let response = next.run(request).instrument(span.clone()).await;
    let _span = span.entered();

    let elapsed = started.elapsed();
    let status = response.status();
    let metrics = telemetry::metrics();
    // Nor does a method that nobody has heard of.
    let known = matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH");
    let label = if known { method.as_str() } else { "OTHER" };
    metrics.requests.with_label_values(&[&route, label, status.as_str()]).inc();
    metrics.request_duration.with_label_values(&[&route]).observe(elapsed.as_secs_f64());
    let timing = response.headers().get("server-timing").and_then(|value| value.to_str().ok()).unwrap_or("-");
    let ms = elapsed.as_secs_f64() * 1e3;
    let ms = (ms * 100.0).round() / 100.0;
    if matches!(route.as_str(), "/healthz" | "/readyz" | "/metrics" | "/assets/{file}") {
        // Asked every few seconds for years, or by a page for each of its parts.
        tracing::debug!(%method, route, status = status.as_u16(), ms, "request");
    } else if status.is_server_error() {
        tracing::warn!(%method, route, status = status.as_u16(), ms, bytes, timing, "request");
    } else {
        tracing::info!(%method, route, status = status.as_u16(), ms, bytes, timing, "request");
    }
    response
}

fn header_text(request: &Request<Body>, name: &str) -> String {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned()
}
