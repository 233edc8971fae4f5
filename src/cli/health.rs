//! `dinoserve health`: what a container's health check runs, where there is no shell and no curl.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;

/// Asks `/readyz`, and fails unless the server says that it is ready.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Address of the server [default: 127.0.0.1 with the port of --port]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The certificate that `serve` was started with, if it was; then HTTPS is spoken
    #[arg(long, env = "DINOSERVE_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Port of the server on this machine
    #[arg(long, env = "DINOSERVE_PORT", default_value_t = 8080)]
    port: u16,

    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

impl Health {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let certificate = self.tls_cert.filter(|path| !path.as_os_str().is_empty());
        let scheme = if certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let address = self
            .url
            .unwrap_or_else(|| format!("{scheme}://127.0.0.1:{}", self.port));
        let address = format!("{}/readyz", address.trim_end_matches('/'));
        let config =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(self.timeout)));
        // The certificate is for the server's public name; on this machine there is nobody else to
        // mistake it for.
        let tls = ureq::tls::TlsConfig::builder()
            .disable_verification(certificate.is_some())
            .build();
        let config = config.tls_config(tls);
        let agent: ureq::Agent = config.http_status_as_error(false).build().into();
        let mut answer = agent
            .get(&address)
            .call()
            .with_context(|| format!("asking {address}"))?;
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        if !answer.status().is_success() {
            bail!("not ready: {}", text.trim());
        }
        println!("{}", text.trim());
        Ok(ExitCode::SUCCESS)
    }
}
