//! The HTTP server: its address, limits and timeouts, API keys and TLS.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;

use crate::{
    error::Result,
    http::{Certificate, HttpConfig, ServeConfig, access::ApiKeys},
};

/// The server's address, and limits of requests and connections.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub(in crate::cli) struct HttpFlags {
    /// IP address to listen on; 0.0.0.0 for all networks
    #[arg(long, env = "DINOSERVE_HOST", default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port to listen on; 0 for any free port
    #[arg(long, env = "DINOSERVE_PORT", default_value_t = 8080)]
    port: u16,

    /// Maximum size of a request body, in bytes
    #[arg(long, env = "DINOSERVE_MAX_BODY_BYTES")]
    #[arg(default_value_t = HttpConfig::default().max_body_bytes)]
    max_body_bytes: usize,

    /// Maximum number of images in a request
    #[arg(long, env = "DINOSERVE_MAX_IMAGES", default_value_t = HttpConfig::default().max_images)]
    max_images: usize,

    /// Maximum number of concurrent requests; further requests are rejected at once with 503
    /// [default: 10 for each core, at least 16; on GPUs 4 for each image of a batch]
    #[arg(long, env = "DINOSERVE_MAX_REQUESTS", value_name = "COUNT")]
    max_requests: Option<usize>,

    /// Maximum size of a request head, in bytes
    #[arg(long, env = "DINOSERVE_MAX_HEADER_BYTES")]
    #[arg(default_value_t = HttpConfig::default().max_header_bytes)]
    max_header_bytes: usize,

    /// Maximum number of open connections; further connections are closed at once
    #[arg(long, env = "DINOSERVE_MAX_CONNECTIONS")]
    #[arg(default_value_t = ServeConfig::default().max_connections)]
    max_connections: usize,

    /// Timeout for receiving and answering a request, in seconds
    #[arg(long, env = "DINOSERVE_REQUEST_TIMEOUT")]
    #[arg(default_value_t = HttpConfig::default().request_timeout.as_secs())]
    request_timeout: u64,

    /// Maximum number of gallery snapshots that are sent at the same time for one API key; further
    /// requests are rejected with 503
    #[arg(long, env = "DINOSERVE_MAX_KEY_SNAPSHOTS", value_name = "COUNT")]
    #[arg(default_value_t = HttpConfig::default().max_key_snapshots)]
    max_key_snapshots: usize,

    /// Timeout for a stalled transfer of a gallery snapshot, in seconds
    #[arg(long, env = "DINOSERVE_SNAPSHOT_IDLE_TIMEOUT")]
    #[arg(default_value_t = HttpConfig::default().snapshot_idle.as_secs())]
    snapshot_idle_timeout: u64,

    /// Timeout for a request head and for idle connections, in seconds
    #[arg(long, env = "DINOSERVE_HEADER_TIMEOUT")]
    #[arg(default_value_t = ServeConfig::default().header_timeout.as_secs())]
    header_timeout: u64,

    /// Timeout for a client that reads nothing of its response, in seconds
    #[arg(long, env = "DINOSERVE_WRITE_TIMEOUT")]
    #[arg(default_value_t = ServeConfig::default().write_timeout.as_secs())]
    write_timeout: u64,

    /// Time to keep serving after SIGTERM while /readyz fails, so that load balancers can drain, in
    /// seconds; Ctrl-C skips it
    #[arg(long, env = "DINOSERVE_SHUTDOWN_DELAY")]
    #[arg(default_value_t = ServeConfig::default().shutdown_delay.as_secs())]
    shutdown_delay: u64,

    /// Timeout for accepted requests when the server stops, in seconds
    #[arg(long, env = "DINOSERVE_SHUTDOWN_GRACE")]
    #[arg(default_value_t = ServeConfig::default().shutdown_grace.as_secs())]
    shutdown_grace: u64,
}

/// Who may use the server, and TLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub(in crate::cli) struct AccessFlags {
    /// File of API keys, one of which every request must then carry; `dinoserve keys new` makes
    /// them [default: no keys are needed]
    #[arg(long, env = "DINOSERVE_API_KEYS", value_name = "FILE")]
    api_keys: Option<PathBuf>,

    /// Certificate chain in PEM, the server's own certificate first; together with --tls-key it
    /// turns on HTTPS
    #[arg(long, env = "DINOSERVE_TLS_CERT", value_name = "FILE")]
    #[arg(requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, env = "DINOSERVE_TLS_KEY", value_name = "FILE")]
    #[arg(requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Origins of pages that may use the API from a browser, separated by commas, such as
    /// https://example.org; * for all [default: none]
    #[arg(long, env = "DINOSERVE_CORS_ORIGIN", value_name = "ORIGIN")]
    #[arg(value_delimiter = ',')]
    cors_origin: Vec<String>,

    /// Interval between checks for changed key and certificate files, in seconds; SIGHUP checks at
    /// once
    #[arg(long, env = "DINOSERVE_RELOAD_INTERVAL")]
    #[arg(default_value_t = ServeConfig::default().reload_interval.as_secs())]
    reload_interval: u64,
}

impl HttpFlags {
    pub(in crate::cli) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    pub(in crate::cli) fn http_config(&self, cors_origins: Vec<String>) -> HttpConfig {
        HttpConfig {
            max_body_bytes: self.max_body_bytes,
            max_images: self.max_images,
            max_header_bytes: self.max_header_bytes,
            cors_origins,
            max_requests: self.max_requests,
            request_timeout: Duration::from_secs(self.request_timeout),
            max_key_snapshots: self.max_key_snapshots,
            snapshot_idle: Duration::from_secs(self.snapshot_idle_timeout),
        }
    }

    pub(in crate::cli) fn serve_config(
        &self,
        access: &AccessFlags,
        certificate: Option<Arc<Certificate>>,
    ) -> ServeConfig {
        ServeConfig {
            max_connections: self.max_connections,
            header_timeout: Duration::from_secs(self.header_timeout),
            write_timeout: Duration::from_secs(self.write_timeout),
            shutdown_delay: Duration::from_secs(self.shutdown_delay),
            shutdown_grace: Duration::from_secs(self.shutdown_grace),
            certificate,
            reload_interval: Duration::from_secs(access.reload_interval),
        }
    }
}

impl AccessFlags {
    /// Reads the API keys, if a file is given.
    pub(in crate::cli) fn keys(&self) -> Result<Option<Arc<ApiKeys>>> {
        match &self.api_keys {
            Some(path) if !path.as_os_str().is_empty() => ApiKeys::open(path).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads the certificate, if files are given.
    pub(in crate::cli) fn certificate(&self) -> Result<Option<Arc<Certificate>>> {
        let files = self.tls_cert.as_ref().zip(self.tls_key.as_ref());
        files
            .map(|(chain, key)| Certificate::open(chain, key))
            .transpose()
    }

    pub(in crate::cli) fn cors_origins(&self) -> Vec<String> {
        self.cors_origin
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_owned())
            .filter(|origin| !origin.is_empty())
            .collect()
    }
}
