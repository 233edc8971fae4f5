//! What happens around every request: its id, its time limit, its line in the log, its place in the
//! metrics.

use std::time::Instant;

use axum::{
    body::HttpBody,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus::IntGauge;
use tracing::Instrument;

use crate::{
    error::{Error, Kind},
    http::{
        AppState,
        api::{gallery::snapshot, models},
        middleware::access::KeyName,
    },
    telemetry,
};

/// An id that a client gives is used if it can stand in a log line.
pub(crate) async fn drop_unfit_request_id(mut request: Request) -> Request {
    let fit = |id: &[u8]| !id.is_empty() && id.len() <= 128 && id.iter().all(u8::is_ascii_graphic);
    if request
        .headers()
        .get("x-request-id")
        .is_some_and(|id| !fit(id.as_bytes()))
    {
        request.headers_mut().remove("x-request-id");
    }
    request
}

/// Answers with 504 what takes longer than the limit. The work behind it is dropped from the queue.
/// Snapshots have a limit of their own, and loading a model takes as long as it takes.
pub(crate) async fn time_limit(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let untimed = |path: &MatchedPath| [snapshot::PATH, models::LOAD_PATH].contains(&path.as_str());
    if request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(untimed)
    {
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

/// Counts, traces and logs.
pub(crate) async fn observe(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let metrics = telemetry::metrics();
    let _in_progress = InProgress::new(&metrics.requests_in_progress);
    let method = request.method().clone();
    // Only known routes become labels, so that no client can make up new ones.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", |path| path.as_str())
        .to_owned();
    let id = header_text(request.headers(), "x-request-id")
        .unwrap_or("-")
        .to_owned();
    let bytes = header_text(request.headers(), "content-length")
        .unwrap_or("-")
        .to_owned();
    let is_http1 = request.version() <= Version::HTTP_11;
    let traced = telemetry::request_span(method.as_str(), &route);
    let [parent, of_vendors] =
        ["traceparent", "tracestate"].map(|name| header_text(request.headers(), name));
    let trace = telemetry::join_trace(&traced, parent, of_vendors).map(tracing::field::display);
    let logged = telemetry::log_span(&id);
    let answering = next.run(request).instrument(logged.clone());
    let mut response = answering.instrument(traced.clone()).await;
    if state.is_stopping() && is_http1 {
        // So that the client's next request is made on a connection to somebody who stays.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    telemetry::record_status(&traced, response.status().as_u16());
    let _span = logged.entered();

    let elapsed = started.elapsed();
    let status = response.status();
    // Nor does a method that nobody has heard of.
    let known = matches!(
        method.as_str(),
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH"
    );
    let label = if known { method.as_str() } else { "OTHER" };
    metrics
        .requests
        .with_label_values(&[&route, label, status.as_str()])
        .inc();
    metrics
        .request_duration
        .with_label_values(&[&route])
        .observe(elapsed.as_secs_f64());
    let timing = header_text(response.headers(), "server-timing").unwrap_or("-");
    let answer_bytes = response.body().size_hint().exact();
    let key = response.extensions().get::<KeyName>().map(|key| &*key.0);
    let ms = (elapsed.as_secs_f64() * 1e5).round() / 1e2;
    let (status, method) = (status.as_u16(), method.as_str());
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                method,
                route,
                status,
                ms,
                bytes,
                answer_bytes,
                timing,
                key,
                trace,
                "request"
            )
        };
    }
    if matches!(
        route.as_str(),
        "/healthz" | "/readyz" | "/metrics" | "/assets/{file}"
    ) {
        // Asked every few seconds for years, or by a page for each of its parts.
        log!(debug);
    } else if status >= 500 {
        log!(warn);
    } else {
        log!(info);
    }
    response
}

/// Counts a request while its answer is made.
struct InProgress<'a>(&'a IntGauge);

impl<'a> InProgress<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
