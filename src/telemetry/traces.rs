//! Distributed traces: a caller's trace is continued, and spans are sent to a collector by OTLP.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use opentelemetry::{
    KeyValue,
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TraceId},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::error::{Error, Result};

/// Target of spans for a collector only.
pub(super) const TARGET: &str = "dinoserve::traces";

/// Export of spans.
#[derive(Debug, Clone)]
pub struct TraceExport {
    /// URL of a collector for OTLP over HTTP, such as `http://localhost:4318`.
    pub endpoint: String,
    /// Share of the traces started here that is sent, 0 to 1. For a trace started by a caller, the
    /// caller decides.
    pub sample: f64,
}

/// Creates a request's span for the collector, with OpenTelemetry's attributes. It does not appear
/// in the log, and costs nothing if no spans are sent.
pub fn request_span(method: &str, route: &str) -> Span {
    tracing::info_span!(
        target: TARGET,
        "request",
        otel.kind = "server",
        otel.name = format_args!("{method} {route}"),
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    )
}

/// Records the status of the response.
pub fn record_status(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
}

/// Joins `span` to the caller's trace, given by the W3C headers `traceparent` and `tracestate`.
///
/// Returns the id of the trace: the caller's, or that of the span if spans are sent.
pub fn join_trace(
    span: &Span,
    traceparent: Option<&str>,
    tracestate: Option<&str>,
) -> Option<TraceId> {
    let mut id = None;
    if let Some(traceparent) = traceparent {
        let mut headers = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        headers.extend(tracestate.map(|state| ("tracestate".to_owned(), state.to_owned())));
        let parent = TraceContextPropagator::new().extract(&headers);
        id = valid(parent.span().span_context().trace_id());
        // This fails if no spans are sent.
        let _ = span.set_parent(parent);
    }
    id.or_else(|| valid(span.context().span().span_context().trace_id()))
}

fn valid(id: TraceId) -> Option<TraceId> {
    (id != TraceId::INVALID).then_some(id)
}

/// Creates the provider that sends spans in batches, in the background.
pub(super) fn provider(export: &TraceExport) -> Result<SdkTracerProvider> {
    let invalid = |detail: String| Error::option("otlp-endpoint", detail);
    let address = export.endpoint.trim_end_matches('/');
    if !address.starts_with("http://") && !address.starts_with("https://") {
        let detail = format!("{address:?} is not a URL such as http://localhost:4318");
        return Err(invalid(detail));
    }
    let address = address.strip_suffix("/v1/traces").unwrap_or(address);
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_endpoint(format!("{address}/v1/traces"))
        .build()
        .map_err(|error| invalid(error.to_string()))?;
    let sampler = Sampler::TraceIdRatioBased(export.sample);
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder()
        .with_service_name("dinoserve")
        .with_attribute(version);
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_resource(resource.build())
        .build())
}

/// Adapts the program's HTTP client to the exporter, which calls it on a separate thread.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
        Self(config.http_status_as_error(false).build().into())
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = response.into_parts();
        let body = body.read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}
