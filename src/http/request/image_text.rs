//! Image files as text: base64, or a `data:` URI.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde::Deserialize;

use crate::{
    error::{Error, Result},
    vision::begins_as_image,
};

/// The standard alphabet, with or without padding. Excess bits of the last character are ignored,
/// as most decoders do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A string, borrowed from the JSON text if it has no escapes.
#[derive(Deserialize)]
pub(super) struct JsonString<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Decodes base64 or a `data:` URI. `name` names the text in an error.
pub(crate) fn decode_image(text: &str, name: &str) -> Result<Bytes> {
    let malformed = |what: &str| Error::malformed(format!("`{name}`: {what}"));
    let text = text.trim_ascii();
    let Some(uri) = strip_data_scheme(text) else {
        if is_address(text) {
            let what = "URLs are not fetched; send the image itself, base64-encoded";
            return Err(malformed(what));
        }
        return decode_base64(text).map_err(|error| malformed(&format!("not base64: {error}")));
    };
    let Some((media_type, data)) = uri.split_once(',') else {
        let what = "the data: URI has no comma; send data:image/png;base64,…";
        return Err(malformed(what));
    };
    let mut parameters = media_type.split(';').skip(1);
    if parameters.any(|parameter| parameter.trim().eq_ignore_ascii_case("base64")) {
        decode_base64(data)
            .map_err(|error| malformed(&format!("the data: URI is not base64: {error}")))
    } else {
        // Without `;base64` the data are the bytes themselves, percent-encoded.
        let bytes: Vec<u8> = percent_decode(data.as_bytes()).collect();
        if !begins_as_image(&bytes) {
            let what = "the data: URI is not base64, and its bytes are not an image; send \
                data:image/png;base64,…";
            return Err(malformed(what));
        }
        Ok(bytes.into())
    }
}

/// Returns whether a text is a `data:` URI.
pub(crate) fn is_data_uri(text: &str) -> bool {
    strip_data_scheme(text.trim_ascii()).is_some()
}

/// Returns the part of a `data:` URI behind the scheme, which is case-insensitive.
fn strip_data_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked("data:".len())?;
    scheme.eq_ignore_ascii_case("data:").then_some(rest)
}

/// Returns whether a text begins with the scheme and the authority of an address.
fn is_address(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.len() <= 16 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Decodes base64 of the standard or of the URL-safe alphabet. It may be percent-encoded and broken
/// into lines.
fn decode_base64(text: &str) -> Result<Bytes, base64::DecodeError> {
    let encoded: Cow<'_, [u8]> = percent_decode(text.as_bytes()).into();
    let is_plain = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b'-' | b'_');
    let decoded = if encoded.iter().all(is_plain) {
        BASE64.decode(encoded)
    } else {
        let standard = encoded.iter().filter(|byte| !byte.is_ascii_whitespace());
        let standard = standard.map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        });
        BASE64.decode(standard.collect::<Vec<u8>>())
    };
    decoded.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes whose base64 has `+`, `/` and two characters of padding.
    const BYTES: [u8; 4] = [0xfb, 0xff, 0xfe, 0x01];

    #[test]
    fn every_form_of_base64_is_decoded() {
        for text in [
            "+//+AQ==",
            "+//+AQ",
            "-__-AQ==",
            "-__-AQ",
            " +//+\r\n\tAQ==\n",
            "%2B%2F%2F%2BAQ%3D%3D",
            "+//+AR==",
            "data:image/jpeg;base64,+//+AQ==",
            "data:image/jpeg; base64,-__-AQ",
            "DATA:image/JPEG;BASE64,+//+AQ==",
            "data:image/png;charset=utf-8;base64, %2b//+\nAQ%3d=",
            "data:;base64,+//+AQ==",
        ] {
            assert_eq!(decode_image(text, "x").expect(text), &BYTES[..], "{text}");
        }
    }

    #[test]
    fn a_uri_without_base64_holds_the_bytes() {
        let decoded = decode_image("data:image/gif,GIF89a%01%ff;", "x").expect("a GIF");
        assert_eq!(decoded, &b"GIF89a\x01\xff;"[..]);
    }

    #[test]
    fn other_texts_are_rejected_by_name() {
        for (text, detail) in [
            ("??", "`x`: not base64: "),
            (
                "data:image/png;base64,+//+A",
                "`x`: the data: URI is not base64: ",
            ),
            ("data:image/png;base64", "`x`: the data: URI has no comma"),
            (
                "data:image/png,iVBORw0K",
                "`x`: the data: URI is not base64, and its bytes",
            ),
            ("https://example.org/cat.png", "`x`: URLs are not fetched"),
            ("HTTP://example.org/cat.png", "`x`: URLs are not fetched"),
            ("s3://bucket/cat.png", "`x`: URLs are not fetched"),
        ] {
            let error = decode_image(text, "x").expect_err(text);
            assert!(error.detail().starts_with(detail), "{text}: {error}");
        }
    }
}
