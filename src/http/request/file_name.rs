//! Names of files in multipart forms, in each encoding in which clients write them.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use encoding_rs::{Encoding, WINDOWS_1252};
use percent_encoding::percent_decode_str;

/// Returns the name of the file in a part of a form, or `None` if the part is no file.
///
/// `filename*` of RFC 5987 comes first. In `filename`, encoded words of RFC 2047 are decoded, as
/// .NET writes them. Bytes that are not UTF-8 are Latin-1.
pub(crate) fn file_name(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_DISPOSITION)?.as_bytes();
    let text = match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(value).0,
    };
    let mut plain = None;
    for (name, value) in Parameters::of(&text) {
        if name.eq_ignore_ascii_case("filename*") {
            if let Some(decoded) = decode_extended(&value) {
                return Some(decoded);
            }
        } else if name.eq_ignore_ascii_case("filename") && plain.is_none() {
            plain = Some(decode_words(&value));
        }
    }
    plain
}

/// The parameters of a header: `; name=value` or `; name="value"`.
struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    /// Begins behind the first word, which is `form-data`.
    fn of(header: &'a str) -> Self {
        Self(header.split_once(';').map_or("", |(_, rest)| rest))
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_once('=')?;
        // A word without a value before the name is skipped.
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        let rest = rest.trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, rest) = rest.split_once(';').unwrap_or((rest, ""));
                (value.trim_end().to_owned(), rest)
            }
        };
        self.0 = rest;
        Some((name, value))
    }
}

/// Splits a quoted text from what follows it. A backslash escapes a quote and itself; any other
/// backslash stays, because browsers do not escape it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = quoted;
    while let Some(end) = rest.find(['"', '\\']) {
        value.push_str(&rest[..end]);
        let is_end = rest[end..].starts_with('"');
        rest = &rest[end + 1..];
        if is_end {
            return (value, rest);
        }
        match rest.chars().next() {
            Some(escaped @ ('"' | '\\')) => {
                value.push(escaped);
                rest = &rest[1..];
            }
            _ => value.push('\\'),
        }
    }
    value.push_str(rest);
    (value, "")
}

/// Decodes `charset'language'text` of RFC 5987, whose text is percent-encoded. Returns `None` if it
/// is none.
fn decode_extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    decode_charset(charset, &bytes)
}

/// Decodes the encoded words of RFC 2047 in a text, and leaves the rest unchanged. White space
/// between two of them is dropped.
fn decode_words(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    let mut follows_word = false;
    while let Some(start) = rest.find("=?") {
        let (before, word) = rest.split_at(start);
        let found = decode_word(word);
        if !(follows_word && found.is_some() && before.trim().is_empty()) {
            decoded.push_str(before);
        }
        follows_word = found.is_some();
        let (text, length) = found.unwrap_or_else(|| ("=?".to_owned(), 2));
        decoded.push_str(&text);
        rest = &word[length..];
    }
    decoded.push_str(rest);
    decoded
}

/// Decodes the encoded word at the beginning, `=?charset?B?text?=` or `=?charset?Q?text?=`. Returns
/// it with its length.
fn decode_word(text: &str) -> Option<(String, usize)> {
    let mut parts = text.strip_prefix("=?")?.splitn(4, '?');
    let charset = parts.next()?;
    let encoding = parts.next()?;
    let encoded = parts.next()?;
    parts.next().filter(|end| end.starts_with('='))?;
    let bytes = match encoding {
        "B" | "b" => BASE64_STANDARD.decode(encoded).ok()?,
        // Quoted-printable: percent-encoding with another sign, and `_` for a space.
        "Q" | "q" => {
            let percent = encoded.replace('%', "%25").replace('=', "%");
            percent_decode_str(&percent.replace('_', " ")).collect()
        }
        _ => return None,
    };
    // RFC 2231 allows a language behind the charset.
    let label = charset.split('*').next().unwrap_or_default();
    let length = "=???".len() + charset.len() + encoding.len() + encoded.len() + "?=".len();
    Some((decode_charset(label, &bytes)?, length))
}

/// Decodes bytes of a charset. Returns `None` if it is unknown, or if the bytes do not fit it.
fn decode_charset(label: &str, bytes: &[u8]) -> Option<String> {
    let charset = Encoding::for_label(label.as_bytes())?;
    let text = charset.decode_without_bom_handling_and_without_replacement(bytes)?;
    Some(text.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn name(disposition: &[u8]) -> Option<String> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(disposition).expect("a header");
        headers.insert(header::CONTENT_DISPOSITION, value);
        file_name(&headers)
    }

    #[test]
    fn names_are_read_in_every_encoding() {
        for (disposition, expected) in [
            (
                &b"form-data; name=\"a\"; filename=\"cat.png\""[..],
                "cat.png",
            ),
            (b"form-data; filename=cat.png; name=a", "cat.png"),
            (b"form-data;name=a;FILENAME=\"a;b=c.png\"", "a;b=c.png"),
            (
                b"form-data; name=\"filename=x\"; filename=\"cat.png\"",
                "cat.png",
            ),
            (
                b"form-data; filename=\"a\\\"b\\\\c\\d.png\"",
                "a\"b\\c\\d.png",
            ),
            (b"form-data; filename=\"\"", ""),
            // RFC 5987
            (
                b"form-data; name=a; filename*=UTF-8''%C3%A4%20b.png",
                "\u{e4} b.png",
            ),
            (
                b"form-data; filename*=utf-8'de'%C3%A4.png; filename=\"a.png\"",
                "\u{e4}.png",
            ),
            (
                b"form-data; filename=\"a.png\"; filename*=iso-8859-1''%E4.png",
                "\u{e4}.png",
            ),
            (
                b"form-data; filename=\"a.png\"; filename*=utf-8''%E4.png",
                "a.png",
            ),
            (b"form-data; filename=\"a.png\"; filename*=nothing", "a.png"),
            // RFC 2047
            (
                b"form-data; filename=\"=?utf-8?B?w6QuanBn?=\"",
                "\u{e4}.jpg",
            ),
            (b"form-data; filename==?utf-8?B?w6QuanBn?=", "\u{e4}.jpg"),
            (
                b"form-data; filename=\"=?ISO-8859-1?Q?=E4_100%.jpg?=\"",
                "\u{e4} 100%.jpg",
            ),
            (
                b"form-data; filename=\"=?utf-8?q?a?= =?utf-8*en?q?b?= c\"",
                "ab c",
            ),
            (
                b"form-data; filename=\"=?what?B?w6Q=?= =?.jpg\"",
                "=?what?B?w6Q=?= =?.jpg",
            ),
            // Raw bytes
            (
                "form-data; filename=\"\u{e4}\u{20ac}.jpg\"".as_bytes(),
                "\u{e4}\u{20ac}.jpg",
            ),
            (b"form-data; filename=\"\xe4\xfc.jpg\"", "\u{e4}\u{fc}.jpg"),
        ] {
            let text = String::from_utf8_lossy(disposition);
            assert_eq!(name(disposition).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(name(b"form-data; name=\"a\""), None);
        assert_eq!(name(b"form-data; name=\"x; filename=y\""), None);
        assert_eq!(file_name(&HeaderMap::new()), None);
    }
}
