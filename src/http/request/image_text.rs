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
    let Some(uri) = DataUri::parse(text) else {
        if begins_as_address(text) {
            let what = "URLs are not fetched; send the image itself, base64-encoded";
            return Err(malformed(what));
        }
        return decode_base64(text.as_bytes())
            .map_err(|error| malformed(&format!("not base64: {error}")));
    };
    let Some(data) = &uri.data else {
        let what = "the data: URI has no comma; send data:image/png;base64,…";
        return Err(malformed(what));
    };
    if uri.is_base64() {
        return decode_base64(data)
            .map_err(|error| malformed(&format!("the data: URI is not base64: {error}")));
    }
    // Without `;base64` the data are the bytes themselves, percent-encoded.
    let bytes: Vec<u8> = percent_decode(data).collect();
    if !begins_as_image(&bytes) {
        let what = "the data: URI is not base64, and its bytes are not an image; send \
            data:image/png;base64,…";
        return Err(malformed(what));
    }
    Ok(bytes.into())
}

/// Returns whether a text is a `data:` URI, and not a sentence that begins with "data:".
pub(crate) fn is_data_uri(text: &str) -> bool {
    DataUri::parse(text.trim_ascii()).is_some_and(|uri| uri.is_well_formed())
}

/// Returns whether a text is the address of something, and not a sentence that names one.
pub(crate) fn is_address(text: &str) -> bool {
    let text = text.trim_ascii();
    begins_as_address(text) && !text.contains(char::is_whitespace)
}

/// Returns whether a text begins with the scheme of an address (RFC 3986) and `://`.
fn begins_as_address(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// A text that begins with `data:`. All of it, or only its head, may be percent-encoded.
struct DataUri<'a> {
    /// The media type with its parameters, decoded.
    head: Cow<'a, str>,
    /// What follows the comma, if there is one.
    data: Option<Cow<'a, [u8]>>,
}

impl<'a> DataUri<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_at_checked("data".len())?;
        if !scheme.eq_ignore_ascii_case("data") {
            return None;
        }
        if let Some(rest) = rest.strip_prefix(':') {
            let (head, data) = match rest.split_once(',').or_else(|| split_at_escape(rest)) {
                Some((head, data)) => (head, Some(data.as_bytes().into())),
                None => (rest, None),
            };
            let head = percent_decode(head.as_bytes()).decode_utf8_lossy();
            return Some(Self { head, data });
        }
        let (colon, rest) = rest.split_at_checked("%3A".len())?;
        if !colon.eq_ignore_ascii_case("%3A") {
            return None;
        }
        let whole: Vec<u8> = percent_decode(rest.as_bytes()).collect();
        let comma = whole.iter().position(|byte| *byte == b',');
        let head = &whole[..comma.unwrap_or(whole.len())];
        Some(Self {
            head: String::from_utf8_lossy(head).into_owned().into(),
            data: comma.map(|comma| whole[comma + 1..].to_vec().into()),
        })
    }

    fn is_base64(&self) -> bool {
        let mut parameters = self.head.split(';').skip(1);
        parameters.any(|parameter| parameter.trim().eq_ignore_ascii_case("base64"))
    }

    /// Returns whether the head is a media type, or empty with a comma behind it, or says that the
    /// data are base64.
    fn is_well_formed(&self) -> bool {
        let kind = self.head.split(';').next().unwrap_or_default();
        match &self.data {
            Some(_) => kind.is_empty() || self.is_base64() || is_media_type(kind),
            None => is_media_type(kind),
        }
    }
}

/// Splits a text at its first escaped comma.
fn split_at_escape(text: &str) -> Option<(&str, &str)> {
    let at = text
        .as_bytes()
        .windows("%2C".len())
        .position(|escape| escape.eq_ignore_ascii_case(b"%2C"))?;
    Some((&text[..at], &text[at + "%2C".len()..]))
}

fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        let mut bytes = text.bytes();
        !text.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Decodes base64 of the standard or of the URL-safe alphabet. It may be percent-encoded and broken
/// into lines.
fn decode_base64(text: &[u8]) -> Result<Bytes, base64::DecodeError> {
    let encoded: Cow<'_, [u8]> = percent_decode(text).into();
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
            "data%3Aimage%2Fjpeg%3Bbase64%2C%2B%2F%2F%2BAQ%3D%3D",
            "Data%3aimage%2fjpeg%3bbase64%2c%2b%2f%2f%2bAQ%3d%3d",
            "data%3Aimage/jpeg;base64,+//+AQ==",
            "data%3Aimage%2Fjpeg%3Bbase64%2C%252B//%252BAQ%253D%253D",
            "data:image/jpeg;base64%2C+//+AQ==",
            "data:image/jpeg%3Bbase64,+//+AQ==",
            "data:image%2Fjpeg%3bbase64%2c-__-AQ",
            "data:image/png;name=a%2Cb.png;base64,+//+AQ==",
        ] {
            assert_eq!(decode_image(text, "x").expect(text), &BYTES[..], "{text}");
        }
    }

    #[test]
    fn a_uri_without_base64_holds_the_bytes() {
        let decoded = decode_image("data:image/gif,GIF89a%01%ff;", "x").expect("a GIF");
        assert_eq!(decoded, &b"GIF89a\x01\xff;"[..]);
        for text in [
            "data%3Aimage%2Fgif%2CGIF89a%2501%25ff%3B",
            "data:image%2Fgif%2CGIF89a%01%ff;",
        ] {
            assert_eq!(decode_image(text, "x").expect(text), decoded, "{text}");
        }
    }

    #[test]
    fn sentences_are_neither_addresses_nor_uris() {
        for text in [
            "data:image/png;base64,AAAA",
            "data:image/png",
            "data:;base64,AAAA",
            "data:,AAAA",
            "data: image/png;base64,AAAA",
            "DATA%3Aimage%2Fpng%3Bbase64%2CAAAA",
            "data:image/png%3Bbase64%2CAAAA",
            "data:image;base64,AAAA",
        ] {
            assert!(is_data_uri(text) && !is_address(text), "{text}");
        }
        for text in [
            "https://example.com/a.png",
            "S3://a/b",
            "git+ssh://a",
            "file:///a",
        ] {
            assert!(is_address(text) && !is_data_uri(text), "{text}");
        }
        for text in [
            "data: the numbers",
            "data: one, two and three",
            "data:numbers",
            "data%3A the numbers",
            "data: see image/png files",
            "database, the",
            "data",
            "dat",
            "look at https://example.com please",
            "https://example.com is a page",
            "://",
            "(https://example.com)",
            "note: a://b",
            "/home/me/cat.png",
            "",
        ] {
            assert!(!is_data_uri(text) && !is_address(text), "{text}");
        }
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
