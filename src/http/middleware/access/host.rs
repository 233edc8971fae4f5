//! The syntax of a host with its port (RFC 9110, RFC 3986).

use std::net::Ipv6Addr;

/// Returns whether bytes are a host with an optional port: a name, an IPv4 address, or an address
/// in brackets. An empty host is none, since no request to this server has one.
pub(super) fn is_host(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_port && (is_ipv6(address) || is_future_address(address));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    !name.is_empty() && is_name(name) && is_port(port)
}

/// Returns whether a text is a port, which may be empty.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.is_empty() || text.parse::<u16>().is_ok())
}

/// Returns whether a text is an IPv6 address, with a zone as clients write it (`%25eth0`, `%eth0`).
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone.strip_prefix("25").unwrap_or(zone))),
        None => (text, None),
    };
    let is_zone = |zone: &str| !zone.is_empty() && is_name(zone);
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_zone)
}

/// Returns whether a text is an address of a later version, such as `v1.a:b`.
fn is_future_address(text: &str) -> bool {
    let Some((version, address)) = text.split_once('.') else {
        return false;
    };
    let digits = version.strip_prefix(['v', 'V']).unwrap_or_default();
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !address.is_empty()
        && address.bytes().all(|byte| byte == b':' || is_plain(byte))
}

/// Returns whether a text has only the characters of a name, of which some may be escaped.
fn is_name(text: &str) -> bool {
    let mut parts = text.split('%');
    let is_plain_text = |text: &[u8]| text.iter().all(|byte| is_plain(*byte));
    is_plain_text(parts.next().unwrap_or_default().as_bytes())
        && parts.all(|part| match part.as_bytes() {
            [high, low, rest @ ..] => {
                high.is_ascii_hexdigit() && low.is_ascii_hexdigit() && is_plain_text(rest)
            }
            _ => false,
        })
}

/// Returns whether a byte is `unreserved` or one of `sub-delims` in RFC 3986.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_the_syntax_of_the_rfcs() {
        for host in [
            "x",
            "localhost:8080",
            "a.example.com",
            "a_b",
            "xn--bcher-kva.example:",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "[::ffff:1.2.3.4]:",
            "[fe80::1%25eth0]:80",
            "[fe80::1%eth0]",
            "[v1.a:b]",
            "b%C3%BCcher",
            "a,b",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            "a b",
            "a, b",
            "a/b",
            "u@b",
            "u:p@b",
            "a:b",
            "a:1:2",
            "a:-1",
            "a:65536",
            "a:99999",
            "a:+1",
            "[::1",
            "::1",
            "[]",
            "[::1]a",
            "[::1]:a",
            "[::1%]",
            "[1.2.3.4]",
            "[v.a]",
            "[v1.]",
            "[x]",
            "a?b",
            "a#b",
            "a\\b",
            "a\"b",
            "<a>",
            "a%",
            "a%g0",
            "a%2",
            "a\tb",
            "http://a",
            "b\u{fc}cher",
            "[::1]:65536",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"b\xfccher"));
    }
}
