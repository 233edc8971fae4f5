//! Successful responses, with the times of their stages.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
};

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use crate::{
    error::{Error, ResultExt},
    http::{Result, response::negotiate::Representation},
    service::Stages,
};

/// Builds a JSON response.
pub(crate) fn json(body: &impl Serialize, stages: &Stages) -> Result<Response> {
    let body = serde_json::to_vec(body).internal("writing JSON")?;
    Ok(answer(Representation::Json, body, stages))
}

/// Builds a response with one body.
pub(crate) fn answer(representation: Representation, body: Vec<u8>, stages: &Stages) -> Response {
    with_timing(
        ([(header::CONTENT_TYPE, representation.media_type())], body),
        stages,
    )
}

/// Builds a response with one part per PNG.
pub(crate) fn multipart(pngs: &[Vec<u8>], stages: &Stages) -> Response {
    // Random, so that no client can put the boundary inside an image.
    let random = || RandomState::new().hash_one(pngs.len());
    let boundary = format!("dinoserve-{:016x}{:016x}", random(), random());
    let kind = Representation::Png.media_type();
    let mut body = Vec::with_capacity(pngs.iter().map(|png| png.len() + 160).sum());
    for (index, png) in pngs.iter().enumerate() {
        let head = format!(
            "--{boundary}\r\nContent-Type: {kind}\r\n\
             Content-Disposition: attachment; filename=\"{index}.png\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(png);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let kind = format!("multipart/mixed; boundary={boundary}");
    with_timing(([(header::CONTENT_TYPE, kind)], body), stages)
}

/// Text of the `X-Image-Hint` header.
const DIM_IMAGE: &str = "an image is nearly black: its 16-bit samples all stay below 16384; \
                         send levels=data to scale them by the bits that they use";

/// Adds the `Server-Timing` header, in milliseconds, and the `X-Image-Hint` header.
fn with_timing(response: impl IntoResponse, stages: &Stages) -> Response {
    let mut response = response.into_response();
    let entries: Vec<String> = stages
        .named()
        .map(|(name, time)| format!("{name};dur={:.2}", time.as_secs_f64() * 1e3))
        .collect();
    if let Ok(value) = HeaderValue::from_str(&entries.join(", ")) {
        response.headers_mut().insert("server-timing", value);
    }
    if stages.has_dim_image {
        let hint = HeaderValue::from_static(DIM_IMAGE);
        response.headers_mut().insert("x-image-hint", hint);
    }
    response
}

/// Returns the first error, with the index of its image if there are several.
pub(crate) fn first_error<T>(outcomes: Vec<Result<T, Error>>) -> Error {
    let several = outcomes.len() > 1;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(error) if several => return error.context(format_args!("image {index}")),
            Err(error) => return error,
            Ok(_) => {}
        }
    }
    Error::internal("the request has no images")
}

/// Returns the bytes of f32 values, little-endian.
pub(crate) fn float_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    let values = values.iter();
    Cow::Owned(values.flat_map(|value| value.to_le_bytes()).collect())
}

/// Returns the bytes of f32 values, little-endian, in base64.
pub(crate) fn float_base64(values: &[f32]) -> String {
    BASE64_STANDARD.encode(float_bytes(values))
}
