//! Who may do what: API keys with roles and rates, and no writes from pages of other sites.
//!
//! All of it is decided from a request's head. What is refused here never reaches what reads
//! bodies.

mod keys;

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

pub use self::keys::{ApiKeys, NewKey, Role};
use crate::{
    error::{Error, Kind, Result},
    http::AppState,
    telemetry,
};

/// The name of the key that a request came with, for whoever logs it.
#[derive(Debug, Clone)]
pub(crate) struct KeyName(pub(crate) Arc<str>);

/// Lets a request pass, or answers it.
pub(crate) async fn check(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let refuse = |reason: &str, error: Error| {
        telemetry::metrics().count_rejection(reason);
        error.into_response()
    };
    if let Err(error) = check_head(
        request.headers(),
        request.uri(),
        state.config.max_header_bytes,
    ) {
        return refuse(error.kind().code(), error);
    }
    if let Err(error) = check_site(&request, &state.config.cors_origins) {
        return refuse("cross_site", error);
    }
    let Some(keys) = &state.keys else {
        return next.run(request).await;
    };
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str);
    let Some(role) = required_role(request.method(), route) else {
        return next.run(request).await;
    };
    let name = match keys.admit(request.headers(), role) {
        Ok(name) => name,
        Err(error) => return refuse(error.kind().code(), error),
    };
    telemetry::metrics()
        .key_requests
        .with_label_values(&[&*name])
        .inc();
    let mut response = next.run(request).await;
    response.extensions_mut().insert(KeyName(name));
    response
}

/// The least role that may use a route; `None` for what everybody may see.
fn required_role(method: &Method, route: Option<&str>) -> Option<Role> {
    // That there is no such route is no secret.
    let route = route?;
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match route {
        "/" | "/gallery" | "/assets/{file}" | "/openapi.json" | "/healthz" | "/readyz" => None,
        _ if route.starts_with("/docs") => None,
        "/v1/models/load" => Some(Role::Admin),
        "/v1/galleries/{name}" | "/v1/galleries/{name}/snapshot" if !safe => Some(Role::Admin),
        _ if safe => Some(Role::Read),
        "/v1/embed"
        | "/v1/embeddings"
        | "/v1/pca"
        | "/v1/attention"
        | "/v1/attention/stats"
        | "/v1/similarity"
        | "/v1/knn"
        | "/v1/classify" => Some(Role::Read),
        // A route that is forgotten here is not open to more than it should be.
        _ => Some(Role::Write),
    }
}

/// Refuses a head that is too large to be any client's honest one.
fn check_head(headers: &HeaderMap, uri: &Uri, most: usize) -> Result<()> {
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum::<usize>()
        + target;
    if bytes <= most {
        return Ok(());
    }
    let detail = format!(
        "the request's head has {bytes} bytes, and {most} are the limit; images belong into the body"
    );
    Err(Error::new(Kind::HeadTooLarge, detail).with_limit(
        "max_header_bytes",
        most as u64,
        "--max-header-bytes",
    ))
}

/// Refuses what a page of another site asks a browser to change here. Browsers tell where a request
/// comes from, by `Sec-Fetch-Site` or at least by `Origin`; other clients tell neither.
fn check_site(request: &Request, allowed: &[String]) -> Result<()> {
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let origin = text("origin");
    let is_allowed =
        origin.is_some_and(|origin| allowed.iter().any(|other| other == "*" || other == origin));
    if matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) || is_allowed
    {
        return Ok(());
    }
    let same_site = match (text("sec-fetch-site"), origin) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            // HTTP/2 has the host in the address.
            let host =
                text(header::HOST.as_str()).or_else(|| Some(request.uri().authority()?.as_str()));
            origin
                .split_once("://")
                .is_some_and(|(_, authority)| host == Some(authority))
        }
        (None, None) => true,
    };
    if same_site {
        return Ok(());
    }
    let detail =
        "a page of another site may not do this; name its origin with --cors-origin if it may";
    Err(Error::new(Kind::Forbidden, detail))
}
