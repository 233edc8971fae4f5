//! Compressed request bodies.
//!
//! Limits on a body count its decompressed bytes, so a small body that expands to a large one is
//! rejected as soon as it exceeds them. gzip and deflate need 32 KB of memory. Other encodings are
//! rejected: a zstd frame may demand a window of 128 MB, and no common client sends them.

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower::{ServiceExt, service_fn};
use tower_http::decompression::{DecompressionBody, RequestDecompression};

use crate::{
    error::shortened,
    http::{Reason, Rejection},
};

/// Encodings that are decoded, for the header `Accept-Encoding`.
const ACCEPTED: &str = "gzip, deflate";

/// Decompresses the body of a request. Rejects an unknown `Content-Encoding` by its name.
pub(crate) async fn decompress(mut request: Request, next: Next) -> Response {
    let encodings = request.headers().get_all(header::CONTENT_ENCODING);
    let names: Vec<String> = encodings
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "identity")
        .collect();
    request.headers_mut().remove(header::CONTENT_ENCODING);
    let encoding = match names.as_slice() {
        [] => return next.run(request).await,
        [name] if name == "gzip" || name == "x-gzip" => "gzip",
        [name] if name == "deflate" => "deflate",
        names => return reject(names),
    };
    let encoding = HeaderValue::from_static(encoding);
    request
        .headers_mut()
        .insert(header::CONTENT_ENCODING, encoding);
    let rest = service_fn(|request: Request<DecompressionBody<Body>>| {
        let next = next.clone();
        async move { Ok::<_, Infallible>(next.run(request.map(Body::new)).await) }
    });
    let Ok(response) = RequestDecompression::new(rest).oneshot(request).await;
    response.map(Body::new)
}

fn reject(encodings: &[String]) -> Response {
    let names = encodings.join(", ");
    let names = shortened(&names);
    let detail = format!(
        "the Content-Encoding is not supported: {names}; send the body uncompressed, or in one of \
         {ACCEPTED}"
    );
    let mut response = Rejection::new(Reason::UnsupportedMediaType, detail).into_response();
    let accepted = HeaderValue::from_static(ACCEPTED);
    response
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, accepted);
    response
}
