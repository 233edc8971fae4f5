//! The pages for people: the playground at `/`, the gallery at `/gallery`, its audit at `/audit`
//! and its map at `/map`, their assets, and the API reference at `/docs`. All of it is embedded in
//! the binary and loads nothing from other hosts.

use std::borrow::Cow;

use axum::{
    Router,
    extract::{Path, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, map_response},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use rust_embed::RustEmbed;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{AppState, Rejection};
use crate::error::{Error, Kind, shortened};

#[derive(RustEmbed)]
#[folder = "src/http/page/assets"]
struct Assets;

/// Keeps the browser from loading or sending anything elsewhere, whatever a file name or label
/// contains.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
     connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);
/// The policy of `/docs`, which brings inline styles: only frames are forbidden.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static("frame-ancestors 'none'");

/// Returns the sample photographs, JPEG files with their names.
pub(crate) fn samples() -> impl Iterator<Item = (Cow<'static, str>, Cow<'static, [u8]>)> {
    let photographs = Assets::iter().filter(|name| name.ends_with(".jpg"));
    photographs.filter_map(|name| Some((name.clone(), Assets::get(&name)?.data)))
}

/// `GET /`.
pub(crate) fn playground() -> MethodRouter<AppState> {
    get(async |headers: HeaderMap| file("index.html", &headers))
}

/// `GET /gallery`.
pub(crate) fn gallery() -> MethodRouter<AppState> {
    get(async |headers: HeaderMap| file("gallery.html", &headers))
}

/// `GET /audit`.
pub(crate) fn audit() -> MethodRouter<AppState> {
    get(async |headers: HeaderMap| file("audit.html", &headers))
}

/// `GET /map`.
pub(crate) fn map() -> MethodRouter<AppState> {
    get(async |headers: HeaderMap| file("map.html", &headers))
}

/// `GET /assets/{file}`.
pub(crate) fn asset() -> MethodRouter<AppState> {
    get(async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers))
}

/// Serves `/docs` and `/openapi.json`.
pub(crate) fn docs(description: OpenApi) -> Router<AppState> {
    let config = Config::default()
        // Without the badge that queries another host.
        .validator_url("none")
        .try_it_out_enabled(true)
        .default_models_expand_depth(-1);
    let swagger = SwaggerUi::new("/docs")
        .url("/openapi.json", description)
        .config(config);
    Router::new()
        .merge(swagger)
        .layer(from_fn(own_start))
        .layer(map_response(async |response: Response| {
            with_policy(response, DOCS_POLICY)
        }))
}

/// Answers `/docs/` with our own page, which has a way back and fits phones.
async fn own_start(request: Request, next: Next) -> Response {
    match request.uri().path() {
        "/docs/" | "/docs/index.html" => file("docs.html", request.headers()),
        _ => next.run(request).await,
    }
}

/// Returns an embedded file, or 304 if the browser has it.
fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Assets::get(name) else {
        let error = Error::new(
            Kind::NotFound,
            format!("unknown asset /assets/{}", shortened(name)),
        );
        return Rejection::from(error).into_response();
    };
    let hash = crate::hex::encode(&file.metadata.sha256_hash()[..8]);
    let tag = format!("\"{hash}\"");
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    // Revalidated each time, so that a new version of the server shows its own pages.
    let common = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "image/jpeg",
    };
    let response = (common, [(header::CONTENT_TYPE, kind)], file.data).into_response();
    with_policy(response, POLICY)
}

fn with_policy(mut response: Response, policy: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
