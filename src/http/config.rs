//! Limits and times of requests.

use std::time::Duration;

/// Limits and times of requests.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Maximum size of a request body, in bytes.
    pub max_body_bytes: usize,
    /// Maximum number of images per request.
    pub max_images: usize,
    /// Maximum size of a request head, in bytes.
    pub max_header_bytes: usize,
    /// Origins whose pages may use the API from a browser, such as `https://example.org`; `*` for
    /// all.
    pub cors_origins: Vec<String>,
    /// Maximum number of concurrent requests; further ones are rejected at once. `None` follows the
    /// engine's plan.
    pub max_requests: Option<usize>,
    /// Timeout from the first byte of a request to its response.
    pub request_timeout: Duration,
    /// Maximum number of snapshots that are sent at the same time for one API key.
    pub max_key_snapshots: usize,
    /// How long the transfer of a snapshot may stall.
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
            max_key_snapshots: 1,
            snapshot_idle: Duration::from_secs(60),
        }
    }
}
