//! Set-up of `tracing`: log lines on standard error and, optionally, spans for a collector.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::{
    panics,
    traces::{self, TraceExport},
};
use crate::error::Result;

/// Format of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines of text, colored on a terminal.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Keeps the export of spans running. When it is dropped, the remaining spans are sent.
#[derive(Debug)]
pub struct Tracing(Option<SdkTracerProvider>);

/// Target of spans for the log only.
const TARGET: &str = "dinoserve::log";

/// Creates a request's span for the log, which puts the id at the start of each line.
pub fn log_span(id: &str) -> Span {
    tracing::info_span!(target: TARGET, "request", id)
}

/// Starts recording. `filter` is in `tracing`'s syntax, such as `info` or `dinoserve=debug,warn`.
pub fn start(format: LogFormat, filter: &str, export: Option<&TraceExport>) -> Result<Tracing> {
    // ONNX Runtime warns of an input with a default, which is intended here. A filter for `ort`
    // overrides this.
    let with_default = format!("ort=error,{filter}");
    let filter =
        EnvFilter::try_new(with_default).unwrap_or_else(|_| EnvFilter::new("ort=error,info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Pretty => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    panics::install_hook();
    let provider = export.map(traces::provider).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("dinoserve"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| {
                metadata.is_span() && metadata.target() != TARGET
            }))
    });
    // This fails on a second start, as in tests.
    let _ = Registry::default()
        .with(lines.with_filter(filter_fn(|metadata| metadata.target() != traces::TARGET)))
        .with(spans)
        .with(filter)
        .try_init();
    Ok(Tracing(provider))
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown()
        {
            eprintln!("warning: the last spans could not be sent: {error}");
        }
    }
}
