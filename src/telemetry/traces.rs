//! Traces across services: the caller's is followed, and spans go to a collector by OTLP.

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

use super::TraceExport;
use crate::error::{Error, Result};

/// Of spans that are for a collector alone.
pub(super) const TARGET: &str = "dinoserve::traces";

/// The span of a request for a collector, in OpenTelemetry's terms. It does not appear in the log,
/// and costs nothing if no spans are sent.
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

/// Tells the status of the answer.
pub fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
}

/// Makes a span part of the trace that a caller tells of in the W3C's `traceparent` and
/// `tracestate`, and gives the trace's id: the caller's, or that of the span if spans are sent.
pub fn follow(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) -> Option<TraceId> {
    let mut id = None;
    if let Some(traceparent) = traceparent {
        let given = [
            ("traceparent", Some(traceparent)),
            ("tracestate", tracestate),
        ];
        let given = given
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let parent =
            TraceContextPropagator::new().extract(&HashMap::<String, String>::from_iter(given));
        id = valid(parent.span().span_context().trace_id());
        // It fails if no spans are sent, and then there is nothing to join.
        let _ = span.set_parent(parent);
    }
    id.or_else(|| valid(span.context().span().span_context().trace_id()))
}

fn valid(id: TraceId) -> Option<TraceId> {
    (id != TraceId::INVALID).then_some(id)
}

/// What sends spans, in the background and in batches.
pub(super) fn provider(export: &TraceExport) -> Result<SdkTracerProvider> {
    let wrong = |what: String| Error::option("otlp-endpoint", what);
    let address = export.endpoint.trim_end_matches('/');
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err(wrong(format!(
            "{address:?} is no address such as http://localhost:4318"
        )));
    }
    let address = if address.ends_with("/v1/traces") {
        address.to_owned()
    } else {
        format!("{address}/v1/traces")
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_endpoint(address)
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    let about = [KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            export.sample,
        ))))
        .with_resource(
            Resource::builder()
                .with_service_name("dinoserve")
                .with_attributes(about)
                .build(),
        )
        .build())
}

/// The program's HTTP client, as the exporter wants it. The exporter calls it on a thread of its
/// own.
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
        let answer = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = answer.into_parts();
        let body = body.read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}
