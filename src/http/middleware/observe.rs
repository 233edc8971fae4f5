//! Observes every request: its id, its span, its metrics and its log line.

use std::time::Instant;

use axum::{
    body::HttpBody,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};
use prometheus::IntGauge;
use tracing::Instrument;

use super::{access::KeyName, route_group::RouteGroup};
use crate::{http::AppState, telemetry};

/// Drops a client's request id that does not fit into a log line.
pub(crate) async fn drop_invalid_request_id(mut request: Request) -> Request {
    let is_valid =
        |id: &[u8]| !id.is_empty() && id.len() <= 128 && id.iter().all(u8::is_ascii_graphic);
    let id = request.headers().get("x-request-id");
    if id.is_some_and(|id| !is_valid(id.as_bytes())) {
        request.headers_mut().remove("x-request-id");
    }
    request
}

/// Counts, traces and logs a request.
pub(crate) async fn observe(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let metrics = telemetry::metrics();
    let _in_progress = InProgress::new(&metrics.requests_in_progress);
    let method = request.method().clone();
    let extensions = request.extensions();
    let is_quiet = extensions
        .get::<RouteGroup>()
        .is_some_and(|group| group.is_quiet);
    // Only known routes become labels, so that no client can create new ones.
    let route = extensions
        .get::<MatchedPath>()
        .map_or("other", |path| path.as_str())
        .to_owned();
    let headers = request.headers();
    let id = header_text(headers, "x-request-id")
        .unwrap_or("-")
        .to_owned();
    let bytes = header_text(headers, "content-length")
        .unwrap_or("-")
        .to_owned();
    let is_http1 = request.version() <= Version::HTTP_11;
    let traced = telemetry::request_span(method.as_str(), &route);
    let parent = header_text(headers, "traceparent");
    let vendors = header_text(headers, "tracestate");
    let trace = telemetry::join_trace(&traced, parent, vendors).map(tracing::field::display);
    let logged = telemetry::log_span(&id);
    let answering = next.run(request).instrument(logged.clone());
    let mut response = answering.instrument(traced.clone()).await;
    if state.is_stopping() && is_http1 {
        // Makes the client's next request reach a server that is not shutting down.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    telemetry::record_status(&traced, response.status().as_u16());
    let _span = logged.entered();

    let elapsed = started.elapsed();
    let status = response.status();
    // Unknown methods share one label, too.
    let label = match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") => known,
        _ => "OTHER",
    };
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
    let method = method.as_str();
    let status = status.as_u16();
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
    if is_quiet {
        log!(debug);
    } else if status >= 500 {
        log!(warn);
    } else {
        log!(info);
    }
    response
}

/// Counts a request until its response is ready.
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
