//! The pages for people: the playground at `/`, the gallery at `/gallery`, what they are made of,
//! and the API at `/docs`. All of it is in the binary, and nothing of it asks any other server.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::RustEmbed;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    error::{Error, Kind},
    http::AppState,
};

#[derive(RustEmbed)]
#[folder = "src/http/page/assets"]
struct Assets;

/// The browser may not load or send anything elsewhere, whatever a file name or label holds.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

pub(crate) fn routes(description: utoipa::openapi::OpenApi) -> Router<AppState> {
    let docs = SwaggerUi::new("/docs").url("/openapi.json", description);
    // Without the badge that asks another server.
    let docs = docs.config(
        Config::default()
            .validator_url("none")
            .try_it_out_enabled(true)
            .default_models_expand_depth(-1),
    );
    // It has styles of its own within, so all but frames is left open.
    let docs = Router::new()
        .merge(docs)
        .layer(map_response(async |mut response: Response| {
            let headers = response.headers_mut();
            headers.insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("frame-ancestors 'none'"),
            );
            headers.insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
            response
        }));
    Router::new()
        .merge(docs)
        .route(
            "/",
            get(async |headers: HeaderMap| file("index.html", &headers)),
        )
        .route(
            "/gallery",
            get(async |headers: HeaderMap| file("gallery.html", &headers)),
        )
        .route(
            "/assets/{file}",
            get(async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers)),
        )
}

/// A file, or 304 if the browser has it.
fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Assets::get(name) else {
        return Error::new(Kind::NotFound, format!("there is no /assets/{name}")).into_response();
    };
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    // Asked for anew each time, so that a new version of the server shows its own pages.
    let common = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "image/jpeg",
    };
    let mut response = (common, [(header::CONTENT_TYPE, kind)], file.data).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
