//! A running server that does the work of a command, in place of galleries that the command opens.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::{
    Agent, AsSendBody, Body, RequestBuilder,
    http::{Response, header},
    tls::{RootCerts, TlsConfig},
};

/// Longest time of a request about one item or one gallery, which a server answers within its own
/// time limit.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(180);

/// The server that a command asks.
#[derive(Args)]
pub(super) struct ServerFlags {
    /// Address of a running server that does it, as http://HOST:PORT, instead of this command; the
    /// only way to change galleries in a folder that a server has open
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    /// API key for the server; unlike the flag, the variable does not show in the process list
    #[arg(long, env = "DINOSERVE_API_KEY", hide_env_values = true)]
    #[arg(value_name = "KEY")]
    api_key: Option<String>,
}

impl std::fmt::Debug for ServerFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerFlags")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl ServerFlags {
    /// Returns the server, if one is named. A request takes no longer than `limit`, if there is
    /// one: a transfer of a large gallery takes long.
    pub(super) fn server(&self, limit: Option<Duration>) -> Option<Server> {
        let address = self.server.as_ref()?.trim_end_matches('/');
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls.build())
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_global(limit)
            .build();
        Some(Server {
            address: address.to_owned(),
            key: self.api_key.as_ref().map(|key| format!("Bearer {key}")),
            agent: agent.into(),
        })
    }
}

/// A client of a server. Clones share its connections.
#[derive(Clone)]
pub(super) struct Server {
    address: String,
    /// Value of the `Authorization` header.
    key: Option<String>,
    agent: Agent,
}

/// An answer, or an error if there was none.
pub(super) type Answer<T> = anyhow::Result<Result<T, Refusal>>;

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Refusal {
    address: String,
    pub(super) status: u16,
    /// Code of the problem, if the server stated one.
    pub(super) code: String,
    pub(super) detail: String,
    /// Time after which the server asks to try again.
    pub(super) retry_after: Option<Duration>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            address,
            status,
            detail,
            ..
        } = self;
        write!(f, "{address} answered {status}: {detail}")
    }
}

impl std::error::Error for Refusal {}

impl Server {
    /// Requests a path.
    pub(super) fn get(&self, path: &str) -> Answer<Response<Body>> {
        let address = format!("{}{path}", self.address);
        let response = self.authorized(self.agent.get(&address)).call();
        answered(address, response)
    }

    /// Changes what a path names.
    pub(super) fn patch(&self, path: &str, change: &Value) -> Answer<Response<Body>> {
        let address = format!("{}{path}", self.address);
        let request = self.authorized(self.agent.patch(&address));
        let request = request.content_type("application/json");
        answered(address, request.send(change.to_string()))
    }

    /// Sends a body of a type to a path.
    pub(super) fn put(
        &self,
        path: &str,
        kind: &str,
        body: impl AsSendBody,
    ) -> Answer<Response<Body>> {
        let address = format!("{}{path}", self.address);
        let request = self.authorized(self.agent.put(&address));
        answered(address, request.content_type(kind).send(body))
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, key),
            None => request,
        }
    }
}

/// Returns the path of an item.
pub(super) fn item_path(id: &str, gallery: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
    let id = utf8_percent_encode(id, KEPT);
    format!("/v1/gallery/{id}?gallery={gallery}")
}

fn answered(
    address: String,
    response: Result<Response<Body>, ureq::Error>,
) -> Answer<Response<Body>> {
    let mut response = response.with_context(|| format!("requesting {address}"))?;
    if response.status().is_success() {
        return Ok(Ok(response));
    }
    let text = response.body_mut().read_to_string().unwrap_or_default();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let member = |name: &str| problem[name].as_str().map(str::to_owned);
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Err(Refusal {
        status: response.status().as_u16(),
        code: member("code").unwrap_or_default(),
        detail: member("detail")
            .unwrap_or_else(|| "no dinoserve with a gallery listens there".to_owned()),
        retry_after: seconds.map(Duration::from_secs),
        address,
    }))
}
