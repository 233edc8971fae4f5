//! `dinoserve health`: the health check of a container without a shell or curl.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;

/// Requests `/readyz`, and fails unless the server is ready.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Address of the server [default: 127.0.0.1 with the port of --port]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Certificate file of the server; the check then uses HTTPS
    #[arg(long, env = "DINOSERVE_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Port of the server on this machine
    #[arg(long, env = "DINOSERVE_PORT", default_value_t = 8080)]
    port: u16,

    /// Timeout for the response, in seconds
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

impl Health {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let certificate = self.tls_cert.filter(|path| !path.as_os_str().is_empty());
        let scheme = certificate.as_ref().map_or("http", |_| "https");
        let local = format!("{scheme}://127.0.0.1:{}", self.port);
        let server = self.url.unwrap_or(local);
        let address = format!("{}/readyz", server.trim_end_matches('/'));
        // Not verified: the certificate is for the server's public name, and the check runs on the
        // server's machine.
        let tls = ureq::tls::TlsConfig::builder()
            .disable_verification(certificate.is_some())
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(self.timeout)))
            .tls_config(tls)
            .http_status_as_error(false)
            .build()
            .into();
        let response = agent.get(&address).call();
        let mut response = response.with_context(|| format!("requesting {address}"))?;
        let text = response.body_mut().read_to_string().unwrap_or_default();
        ensure!(response.status().is_success(), "not ready: {}", text.trim());
        println!("{}", text.trim());
        Ok(())
    }
}
