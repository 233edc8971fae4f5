//! Logs, traces and metrics.

mod logs;
mod metrics;
mod traces;

pub use self::{
    logs::{LogFormat, Tracing, log_span, start},
    metrics::{GalleryFacts, Metrics, metrics},
    traces::{TraceExport, join_trace, record_status, request_span},
};
