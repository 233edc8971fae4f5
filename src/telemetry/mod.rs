//! Logs, traces and metrics.

mod logs;
mod metrics;
mod traces;

pub use self::{
    logs::{LogFormat, TraceExport, Tracing, log_span, start},
    metrics::{GalleryFacts, Metrics, metrics},
    traces::{answered, follow, request_span},
};
