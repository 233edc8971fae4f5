//! What `tracing` records: lines on standard error and, if asked for, spans that go to a collector.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::traces;
use crate::error::Result;

/// Form of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people, colored on a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Where spans go.
#[derive(Debug, Clone)]
pub struct TraceExport {
    /// Address of a collector that speaks OTLP over HTTP, such as `http://localhost:4318`.
    pub endpoint: String,
    /// Share of the traces that begin here that is sent, 0 to 1. A trace that a caller began is
    /// sent if the caller says so.
    pub sample: f64,
}

/// What is recorded from now on. When it is dropped, spans that wait are sent.
#[derive(Debug)]
pub struct Tracing(Option<SdkTracerProvider>);

/// Of spans that are for the log alone.
const TARGET: &str = "dinoserve::log";

/// The span of a request for the log, where its id stands at the beginning of each line.
pub fn log_span(id: &str) -> Span {
    tracing::info_span!(target: TARGET, "request", id)
}

/// Starts to record. `filter` is in `tracing`'s syntax, such as `info` or `dinoserve=debug,warn`.
///
/// # Errors
/// [`crate::error::Kind::InvalidOption`] if the collector's address is none.
pub fn start(format: LogFormat, filter: &str, export: Option<&TraceExport>) -> Result<Tracing> {
    // The runtime warns of what we do on purpose (an input with a default); a filter that names
    // `ort` shows it.
    let with_default = format!("ort=error,{filter}");
    let filter =
        EnvFilter::try_new(with_default).unwrap_or_else(|_| EnvFilter::new("ort=error,info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let for_lines = |about: &tracing::Metadata<'_>| about.target() != traces::TARGET;
    let for_collector = |about: &tracing::Metadata<'_>| about.is_span() && about.target() != TARGET;
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Pretty => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let provider = export.map(traces::provider).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("dinoserve"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(for_collector))
    });
    // A second start, as in tests, is of no consequence.
    let _ = Registry::default()
        .with(lines.with_filter(filter_fn(for_lines)))
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
