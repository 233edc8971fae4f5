//! Content negotiation by the `Accept` header.

use std::str::FromStr;

use axum::http::{HeaderMap, header};
use headers_accept::Accept;
use mediatype::MediaType;

use super::rejection::{Reason, Rejection, Result};
use crate::error::shortened;

/// A representation that an operation may offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    Json,
    Png,
    /// A `.npy` file.
    Npy,
    /// Little-endian f32 in C order.
    Floats,
    /// Rows of findings.
    Csv,
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
            Self::Csv => "text/csv",
            Self::Multipart => "multipart/mixed",
        }
    }
}

/// Returns the offer that the client prefers; the first of equal ones, and of all if the client
/// states no preference.
pub(crate) fn negotiate(headers: &HeaderMap, offers: &[Representation]) -> Result<Representation> {
    // Element by element, so that an unreadable one does not spoil the others.
    let elements: Vec<String> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(readable)
        .collect();
    let wanted = elements.join(", ");
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
        let offered = offered.join(", ");
        let wanted = shortened(&wanted);
        let detail = format!("Accept: {wanted} matches none of {offered}; ask for one of them");
        Rejection::new(Reason::NotAcceptable, detail)
    })
}

/// Returns an element of `Accept` without its charset, and with `*/*` for the `*` that Java sends.
/// Returns `None` for an invalid one.
fn readable(element: &str) -> Option<String> {
    let mut element = element.trim().to_owned();
    if element == "*" || element.starts_with("*;") {
        element = element.replacen('*', "*/*", 1);
    }
    let without_charset: Vec<&str> = element
        .split(';')
        .filter(|part| !part.trim().starts_with("charset"))
        .collect();
    let element = without_charset.join(";");
    MediaType::parse(&element).is_ok().then_some(element)
}

/// Images with different grids do not fit into one array.
pub(crate) fn different_grids() -> Rejection {
    Rejection::new(
        Reason::NotAcceptable,
        "the images have different grids, which do not fit into one array; send them one by one, \
         ask for JSON, or make them the same size by resize=squash or resize=crop",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const OFFERS: [Representation; 3] = [
        Representation::Json,
        Representation::Png,
        Representation::Npy,
    ];

    fn chosen(accept: &'static str) -> Result<Representation> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        negotiate(&headers, &OFFERS)
    }

    #[test]
    fn the_preferred_offer_is_chosen() {
        let rows = [
            ("", Representation::Json),
            ("*/*", Representation::Json),
            ("text/html, *;q=0.2", Representation::Json),
            ("image/png", Representation::Png),
            ("image/*, application/json;q=0.5", Representation::Png),
            ("application/json; charset=utf-8", Representation::Json),
            ("???, application/x-npy", Representation::Npy),
        ];
        for (accept, expected) in rows {
            assert_eq!(chosen(accept).unwrap(), expected, "{accept}");
        }
    }

    #[test]
    fn a_long_header_is_repeated_in_part() {
        let long = format!("text/html{}", ", text/plain".repeat(2000));
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(&long).unwrap());
        let error = negotiate(&headers, &OFFERS).unwrap_err();
        assert!(error.detail.starts_with("Accept: text/html, text/plain, "));
        assert!(error.detail.contains("… matches none of application/json"));
        assert!(error.detail.len() < 250, "{}", error.detail);
    }

    #[test]
    fn an_unacceptable_request_lists_the_offers() {
        let error = chosen("text/html").unwrap_err();
        assert_eq!(error.reason, Reason::NotAcceptable);
        assert!(
            error
                .detail
                .contains("application/json, image/png, application/x-npy")
        );
    }
}
