//! Which representation the client wants, by its `Accept`.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
    str::FromStr,
};

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use headers_accept::Accept;
use mediatype::MediaType;

use crate::{
    error::{Error, Kind, Result},
    service::Stages,
};

/// A representation that an endpoint may offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    Json,
    Png,
    /// A `.npy` file.
    Npy,
    /// Little-endian f32 in C order.
    Floats,
    /// One part per image.
    Multipart,
}

impl Representation {
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Png => "image/png",
            Self::Npy => "application/x-npy",
            Self::Floats => "application/octet-stream",
            Self::Multipart => "multipart/mixed",
        }
    }
}

/// The offer that the client likes best; of equals the first.
///
/// # Errors
/// [`Kind::NotAcceptable`] that lists what is offered.
pub(crate) fn negotiate(headers: &HeaderMap, offers: &[Representation]) -> Result<Representation> {
    let values: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    // Element by element, so that one that is odd (as Java's bare `*`) does not spoil the others.
    let readable = |element: &str| {
        let element = element.trim();
        let element = if element == "*" || element.starts_with("*;") {
            element.replacen('*', "*/*", 1)
        } else {
            element.to_owned()
        };
        let without_charset: Vec<&str> = element
            .split(';')
            .filter(|part| !part.trim().starts_with("charset"))
            .collect();
        let element = without_charset.join(";");
        MediaType::parse(&element).is_ok().then_some(element)
    };
    let wanted: Vec<String> = values
        .iter()
        .flat_map(|value| value.split(','))
        .filter_map(readable)
        .collect();
    let wanted = wanted.join(", ");
    if wanted.is_empty() {
        return Ok(offers[0]);
    }
    let types: Vec<MediaType<'_>> = offers
        .iter()
        .map(|offer| MediaType::parse(offer.media_type()).expect("our media types are valid"))
        .collect();
    let chosen = Accept::from_str(&wanted).ok().and_then(|accept| {
        let best = accept.negotiate(&types)?;
        types.iter().position(|media| media == best)
    });
    chosen.map(|index| offers[index]).ok_or_else(|| {
        let offered: Vec<&str> = offers.iter().map(|offer| offer.media_type()).collect();
        Error::new(
            Kind::NotAcceptable,
            format!("Accept: {wanted} fits none of {}", offered.join(", ")),
        )
    })
}

/// An answer of one body, with the times of its stages.
pub(crate) fn answer(representation: Representation, body: Vec<u8>, stages: &Stages) -> Response {
    let kind = HeaderValue::from_static(representation.media_type());
    with_timing(
        ([(header::CONTENT_TYPE, kind)], body).into_response(),
        stages,
    )
}

/// An answer of one part per image.
pub(crate) fn multipart_answer(parts: &[Vec<u8>], kind: &str, stages: &Stages) -> Response {
    // Random, so that no client can put it inside a picture.
    let random = || RandomState::new().hash_one(parts.len());
    let boundary = format!("dinoserve-{:016x}{:016x}", random(), random());
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.len() + 160).sum());
    for (index, part) in parts.iter().enumerate() {
        let head = format!(
            "--{boundary}\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename=\"{index}.png\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let kind = format!("multipart/mixed; boundary={boundary}");
    with_timing(
        ([(header::CONTENT_TYPE, kind)], body).into_response(),
        stages,
    )
}

/// `Server-Timing` in milliseconds.
fn with_timing(mut response: Response, stages: &Stages) -> Response {
    let entry = |(name, time): (&str, std::time::Duration)| {
        format!("{name};dur={:.2}", time.as_secs_f64() * 1e3)
    };
    let value = stages.named().map(entry).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert("server-timing", value);
    }
    response
}

/// The bytes of f32 values, little-endian.
pub(crate) fn float_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    Cow::Owned(
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    )
}

/// These bytes in base64.
pub(crate) fn float_base64(values: &[f32]) -> String {
    BASE64_STANDARD.encode(float_bytes(values))
}
