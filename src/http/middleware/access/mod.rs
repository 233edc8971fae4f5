//! Access control: API keys with roles and rates, and no changes by pages of other sites.
//!
//! All checks use the request head alone. A rejected request never reaches a body reader.

mod host;
mod keys;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use self::host::is_host;
pub use self::keys::{ApiKeys, NewKey, Role};
use super::route_group::RouteGroup;
use crate::{
    error::{Error, shortened},
    http::{AppState, Reason, Rejection, Result},
    service::on_behalf_of,
    telemetry,
};

/// Name of the key that a request came with, for handlers and the log.
#[derive(Debug, Clone)]
pub(crate) struct KeyName(pub(crate) Arc<str>);

/// Passes a request on, or rejects it.
pub(crate) async fn check(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let config = &state.config;
    if let Err(error) = check_head(request.headers(), request.uri(), config.max_header_bytes) {
        return reject(error.code(), error);
    }
    if let Err(error) = check_host(&request) {
        return reject(error.code(), error);
    }
    if let Err(error) = check_site(&request, &config.cors_origins) {
        return reject("cross_site", error);
    }
    let Some(keys) = &state.keys else {
        return next.run(request).await;
    };
    // Unknown paths have no group: their answer is 404, which is no secret.
    let group = request.extensions().get::<RouteGroup>();
    let Some(role) = group.and_then(|group| group.role) else {
        return next.run(request).await;
    };
    let name = match keys.admit(request.headers(), role) {
        Ok(name) => name,
        Err(error) => return reject(error.code(), error),
    };
    telemetry::metrics()
        .key_requests
        .with_label_values(&[&*name])
        .inc();
    request.extensions_mut().insert(KeyName(Arc::clone(&name)));
    let mut response = on_behalf_of(Arc::clone(&name), next.run(request)).await;
    response.extensions_mut().insert(KeyName(name));
    response
}

fn reject(reason: &str, error: Rejection) -> Response {
    telemetry::metrics().count_rejection(reason);
    error.into_response()
}

/// Rejects a request head above the limit.
fn check_head(headers: &HeaderMap, uri: &Uri, max_bytes: usize) -> Result<()> {
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    let bytes = target + fields.sum::<usize>();
    if bytes <= max_bytes {
        return Ok(());
    }
    let detail =
        format!("request head is {bytes} bytes, limit is {max_bytes}; send images in the body");
    let error = Rejection::new(Reason::HeadTooLarge, detail);
    Err(error.with_limit("max_header_bytes", max_bytes as u64, "--max-header-bytes"))
}

/// Rejects a request that states no host, several, or an invalid one.
fn check_host(request: &Request) -> Result<()> {
    let hosts = request.headers().get_all(header::HOST);
    let fields = hosts.iter().count();
    let is_http2 = request.version() >= Version::HTTP_2;
    let is_missing = match is_http2 {
        // HTTP/2 has the host in the URI.
        true => fields == 0 && request.uri().authority().is_none(),
        false => fields == 0 && request.version() == Version::HTTP_11,
    };
    let wrong = match fields {
        _ if is_missing => "the request has no Host header; send one".to_owned(),
        2.. => "the request has several Host headers; send one".to_owned(),
        0 | 1 => {
            let authority = request.uri().authority().map(Authority::as_str);
            let host = hosts.iter().map(HeaderValue::as_bytes);
            let mut stated = authority.map(str::as_bytes).into_iter().chain(host);
            let Some(wrong) = stated.find(|host| !is_host(host)) else {
                return Ok(());
            };
            let wrong = String::from_utf8_lossy(wrong);
            let wrong = shortened(&wrong);
            format!(
                "the Host is invalid: {wrong:?}; send a name or an address, with or without a port"
            )
        }
    };
    Err(Error::malformed(wrong).into())
}

/// Rejects changes that a page of another site makes through a visitor's browser.
///
/// Browsers state the origin of a request in `Sec-Fetch-Site`, or at least in `Origin`. Other
/// clients send neither.
fn check_site(request: &Request, allowed: &[String]) -> Result<()> {
    if matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) {
        return Ok(());
    }
    let text = |name: &str| request.headers().get(name)?.to_str().ok();
    let origin = text("origin");
    if origin.is_some_and(|origin| allowed.iter().any(|other| other == "*" || other == origin)) {
        return Ok(());
    }
    let is_same_site = match (text("sec-fetch-site"), origin) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            // HTTP/2 has the host in the URI.
            let authority = || Some(request.uri().authority()?.as_str());
            let host = text(header::HOST.as_str()).or_else(authority);
            origin
                .split_once("://")
                .is_some_and(|(_, authority)| host == Some(authority))
        }
        (None, None) => true,
    };
    if is_same_site {
        return Ok(());
    }
    let detail = "request comes from a page of another site; allow its origin with --cors-origin";
    Err(Rejection::new(Reason::Forbidden, detail))
}
