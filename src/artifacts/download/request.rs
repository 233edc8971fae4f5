//! HTTP requests of a download.

use std::time::Duration;

use ureq::{
    Agent, Body,
    http::{HeaderMap, HeaderName, Response, Uri, header},
    tls::{RootCerts, TlsConfig},
};

use crate::{
    artifacts::Hub,
    error::{Error, Kind},
};

const MAX_REDIRECTS: usize = 10;
/// A model hub's header with the SHA-256 of a file.
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");

/// Why an attempt failed.
pub(super) enum Failure {
    /// A retry will not help.
    Permanent(Error),
    /// A retry can succeed.
    Transient {
        problem: String,
        /// Whether the attempt kept the bytes of the attempts before.
        resumed: bool,
    },
}

impl Failure {
    pub(super) fn permanent(detail: String) -> Self {
        Self::Permanent(Error::new(Kind::Download, detail))
    }

    pub(super) fn transient(problem: impl Into<String>) -> Self {
        Self::Transient {
            problem: problem.into(),
            resumed: true,
        }
    }
}

/// Part of the file that a response brings.
pub(super) struct ByteRange {
    /// Position of the first byte.
    pub(super) start: u64,
    /// Size of the whole file, if known.
    pub(super) total: Option<u64>,
}

/// Creates the HTTP client.
pub(super) fn new_agent() -> Agent {
    // The machine's certificates include that of a corporate proxy.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
    Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .tls_config(tls.build())
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .user_agent(concat!("dinoserve/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// The last response of a chain of redirects.
pub(super) struct Reply {
    pub(super) response: Response<Body>,
    /// SHA-256 that the hub announced.
    pub(super) announced: Option<String>,
    /// Address that responded.
    pub(super) uri: Uri,
}

/// Sends a request for the bytes from `start` on.
///
/// Redirects are followed here, because the hub sends the hash (`X-Linked-ETag`) only with the
/// redirect, and because its token must not be sent to another host.
pub(super) fn get(
    agent: &Agent,
    hub: &Hub,
    url: &str,
    start: u64,
    timeout: Duration,
) -> Result<Reply, Failure> {
    let mut uri: Uri = url
        .parse()
        .map_err(|error| Failure::permanent(format!("{url:?} is not a URL: {error}")))?;
    let mut announced = None;
    for _ in 0..MAX_REDIRECTS {
        let config = agent.get(&uri).config().timeout_recv_body(Some(timeout));
        let mut request = config.build();
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        if let Some(authorization) = hub.authorization(&uri) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = request
            .call()
            .map_err(|error| Failure::transient(error.to_string()))?;
        let headers = response.headers();
        announced = announced.or_else(|| {
            let tag = header_text(headers, LINKED_ETAG)?.trim_matches('"');
            is_sha256(tag).then(|| tag.to_owned())
        });
        if !response.status().is_redirection() {
            return Ok(Reply {
                response,
                announced,
                uri,
            });
        }
        let location = header_text(headers, header::LOCATION)
            .ok_or_else(|| Failure::permanent(format!("{uri} redirects without a location")))?;
        let next = resolve(&uri, location).ok_or_else(|| {
            Failure::permanent(format!(
                "{uri} redirects to {location:?}, which is not a URL"
            ))
        })?;
        if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            return Err(Failure::permanent(format!(
                "{uri} redirects to the insecure {next}"
            )));
        }
        uri = next;
    }
    Err(Failure::permanent(format!(
        "{url} redirects more than {MAX_REDIRECTS} times"
    )))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Resolves a `Location`: absolute, or relative to the server's root.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with('/') {
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(location.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    let uri: Uri = location.parse().ok()?;
    uri.scheme().is_some().then_some(uri)
}

/// Parses a `Content-Range`: `bytes 100-199/200`, or `bytes */200`, whose start counts as 0.
pub(super) fn content_range(headers: &HeaderMap) -> Option<ByteRange> {
    let value = header_text(headers, header::CONTENT_RANGE)?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = match range {
        "*" => 0,
        _ => range.split_once('-')?.0.parse().ok()?,
    };
    Some(ByteRange {
        start,
        total: total.parse().ok(),
    })
}

/// Returns a header's value if it is text.
pub(super) fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(value: &'static str) -> Option<(u64, Option<u64>)> {
        let value = header::HeaderValue::from_static(value);
        content_range(&HeaderMap::from_iter([(header::CONTENT_RANGE, value)]))
            .map(|range| (range.start, range.total))
    }

    #[test]
    fn content_ranges_are_parsed() {
        assert_eq!(range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(range("bytes */200"), Some((0, Some(200))));
        assert_eq!(range("bytes 100-199/*"), Some((100, None)));
        assert_eq!(range("items 1-2/3"), None);
    }

    #[test]
    fn locations_are_absolute_or_relative_to_the_root() {
        let base = Uri::from_static("https://hub.example/a/b?c");
        let resolved = |location| resolve(&base, location).map(|uri| uri.to_string());
        assert_eq!(resolved("/x?y"), Some("https://hub.example/x?y".to_owned()));
        assert_eq!(resolved("http://b.c/"), Some("http://b.c/".to_owned()));
        assert_eq!(resolved("x/y"), None);
    }
}
