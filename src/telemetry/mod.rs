//! Logs, traces and metrics.

mod logs;
mod metrics;
mod panics;
mod traces;

pub use self::{
    logs::{LogFormat, Tracing, log_span, start},
    metrics::{GalleryFacts, Metrics, ModelFacts, metrics},
    panics::catch_logged,
    traces::{TraceExport, join_trace, record_status, request_span},
};
