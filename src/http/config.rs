//! Limits and times of the HTTP server.

use std::time::Duration;

/// Limits and times of the edge.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Most images of a request.
    pub max_images: usize,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Origins whose pages may use the API from a browser, such as `https://example.org`; `*` for
    /// all.
    pub cors_origins: Vec<String>,
    /// Requests that may be under way together; more are refused at once. `None` for as many as the
    /// engine's plan has work for.
    pub max_requests: Option<usize>,
    /// Time in which a request must have been answered, its sending included.
    pub request_timeout: Duration,
    /// Time that a snapshot of a gallery may stand still on its way in or out.
    pub snapshot_idle: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_images: 64,
            max_header_bytes: 32 << 10,
            cors_origins: Vec::new(),
            max_requests: None,
            request_timeout: Duration::from_secs(60),
            snapshot_idle: Duration::from_secs(60),
        }
    }
}
