//! Flags of the HTTP edge: where it listens, its limits and times, and who may use it.

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

/// Where the server listens, and the limits of requests and connections.
#[derive(Debug, Clone, Args)]
pub(super) struct HttpFlags {
    /// Address to listen on; 0.0.0.0 for every network
    #[arg(long, env = "DINOSERVE_HOST", default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "DINOSERVE_PORT", default_value_t = 8080)]
    port: u16,

    /// Most bytes of a request's body
    #[arg(long, env = "DINOSERVE_MAX_BODY_BYTES", default_value_t = HttpConfig::default().max_body_bytes)]
    max_body_bytes: usize,

    /// Most images of a request
    #[arg(long, env = "DINOSERVE_MAX_IMAGES", default_value_t = HttpConfig::default().max_images)]
    max_images: usize,

    /// Requests that may be under way together; more are refused at once with 503 [default: 10 for
    /// each core, at least 16; on GPUs 4 for each image of a batch]
    #[arg(long, env = "DINOSERVE_MAX_REQUESTS", value_name = "COUNT")]
    max_requests: Option<usize>,

    /// Most bytes of a request's head
    #[arg(long, env = "DINOSERVE_MAX_HEADER_BYTES", default_value_t = HttpConfig::default().max_header_bytes)]
    max_header_bytes: usize,

    /// Most connections that are open together; more are closed at once
    #[arg(long, env = "DINOSERVE_MAX_CONNECTIONS", default_value_t = ServeConfig::default().max_connections)]
    max_connections: usize,

    /// Seconds in which a request must have been sent and answered
    #[arg(long, env = "DINOSERVE_REQUEST_TIMEOUT", default_value_t = HttpConfig::default().request_timeout.as_secs())]
    request_timeout: u64,

    /// Seconds that a snapshot of a gallery may stand still on its way in or out
    #[arg(long, env = "DINOSERVE_SNAPSHOT_IDLE_TIMEOUT", default_value_t = HttpConfig::default().snapshot_idle.as_secs())]
    snapshot_idle_timeout: u64,

    /// Seconds in which a request's head must have arrived; a connection that is idle for longer is
    /// closed
    #[arg(long, env = "DINOSERVE_HEADER_TIMEOUT", default_value_t = ServeConfig::default().header_timeout.as_secs())]
    header_timeout: u64,

    /// Seconds for which a client may take no bytes of its answer; then its connection is closed
    #[arg(long, env = "DINOSERVE_WRITE_TIMEOUT", default_value_t = ServeConfig::default().write_timeout.as_secs())]
    write_timeout: u64,

    /// Seconds for which the server goes on after SIGTERM, but for /readyz, which says that it
    /// stops: time for load balancers to notice. After Ctrl-C there is no delay
    #[arg(long, env = "DINOSERVE_SHUTDOWN_DELAY", default_value_t = ServeConfig::default().shutdown_delay.as_secs())]
    shutdown_delay: u64,

    /// Seconds that accepted requests get to end when the server is stopped
    #[arg(long, env = "DINOSERVE_SHUTDOWN_GRACE", default_value_t = ServeConfig::default().shutdown_grace.as_secs())]
    shutdown_grace: u64,
}

/// Who may use the server, and how it is spoken to.
#[derive(Debug, Clone, Args)]
pub(super) struct AccessFlags {
    /// File of API keys, which every request then needs; `dinoserve keys new` makes them [default:
    /// no keys are needed]
    #[arg(long, env = "DINOSERVE_API_KEYS", value_name = "FILE")]
    api_keys: Option<PathBuf>,

    /// Certificates in PEM, the server's own first; with --tls-key, the server speaks HTTPS
    #[arg(
        long,
        env = "DINOSERVE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(
        long,
        env = "DINOSERVE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// Origins whose pages may use the API from a browser, with commas between them, such as
    /// https://example.org; * for all [default: none]
    #[arg(
        long,
        env = "DINOSERVE_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    cors_origin: Vec<String>,

    /// Seconds between looks at the files of keys and certificates, which are read anew when they
    /// have changed; SIGHUP asks for it at once
    #[arg(long, env = "DINOSERVE_RELOAD_INTERVAL", default_value_t = ServeConfig::default().reload_interval.as_secs())]
    reload_interval: u64,
}

impl HttpFlags {
    /// Where the server listens.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Limits of requests.
    pub(super) fn http_config(&self, cors_origins: Vec<String>) -> HttpConfig {
        HttpConfig {
            max_body_bytes: self.max_body_bytes,
            max_images: self.max_images,
            max_header_bytes: self.max_header_bytes,
            cors_origins,
            max_requests: self.max_requests,
            request_timeout: Duration::from_secs(self.request_timeout),
            snapshot_idle: Duration::from_secs(self.snapshot_idle_timeout),
        }
    }

    /// How connections are treated.
    pub(super) fn serve_config(
        &self,
        certificate: Option<Arc<Certificate>>,
        reload_interval: Duration,
    ) -> ServeConfig {
        ServeConfig {
            max_connections: self.max_connections,
            header_timeout: Duration::from_secs(self.header_timeout),
            write_timeout: Duration::from_secs(self.write_timeout),
            shutdown_delay: Duration::from_secs(self.shutdown_delay),
            shutdown_grace: Duration::from_secs(self.shutdown_grace),
            certificate,
            reload_interval,
        }
    }
}

impl AccessFlags {
    /// The API keys, if there are to be any.
    pub(super) fn keys(&self) -> Result<Option<Arc<ApiKeys>>> {
        let file = self
            .api_keys
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty());
        file.map(|path| ApiKeys::open(path)).transpose()
    }

    /// The certificate, if the server is to speak TLS.
    pub(super) fn certificate(&self) -> Result<Option<Arc<Certificate>>> {
        let files = self.tls_cert.as_ref().zip(self.tls_key.as_ref());
        files
            .map(|(chain, key)| Certificate::open(chain, key))
            .transpose()
    }

    /// Origins whose pages may use the API.
    pub(super) fn cors_origins(&self) -> Vec<String> {
        self.cors_origin
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_owned())
            .filter(|o| !o.is_empty())
            .collect()
    }

    /// Time between looks at files.
    pub(super) fn reload_interval(&self) -> Duration {
        Duration::from_secs(self.reload_interval)
    }
}
