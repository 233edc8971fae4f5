//! The address of a stream.

use std::{fmt, str::FromStr};

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind, Result};

/// The servers and the name of a stream, and the name of its consumer. Its text leaves out the
/// user and the password.
#[derive(Debug, Clone)]
pub(super) struct StreamAddress {
    pub(super) servers: Vec<ServerAddr>,
    /// User and password.
    pub(super) user: Option<(String, String)>,
    pub(super) stream: String,
    pub(super) consumer: Option<String>,
}

/// What an address looks like.
const FORM: &str = "nats://HOST[:PORT][,HOST…]/STREAM[/CONSUMER]";

impl FromStr for StreamAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |detail: fmt::Arguments<'_>| {
            let detail = format!("--from: {detail}; the address must be {FORM}");
            Err(Error::new(Kind::InvalidOption, detail))
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("nats" | "tls"), rest)) => (scheme, rest),
            Some((scheme, _)) => return invalid(format_args!("unknown scheme {scheme:?}")),
            None => return invalid(format_args!("the scheme is missing")),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match hosts.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, hosts),
        };
        let user = match user.map(|user| user.split_once(':')) {
            Some(Some((user, password))) => Some((decoded(user)?, decoded(password)?)),
            Some(None) => return invalid(format_args!("the password of the user is missing")),
            None => None,
        };
        let mut servers = Vec::new();
        for host in hosts.split(',') {
            match format!("{scheme}://{host}").parse::<ServerAddr>() {
                Ok(server) if !server.host().is_empty() => servers.push(server),
                _ => return invalid(format_args!("invalid host {host:?}")),
            }
        }
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let (Some(stream), consumer, None) = (names.next(), names.next(), names.next()) else {
            return invalid(format_args!("one name of a stream must follow the hosts"));
        };
        for name in [Some(stream), consumer].into_iter().flatten() {
            if name.contains(['.', '*', '>', '\\']) || name.contains(char::is_whitespace) {
                return invalid(format_args!("invalid name {name:?}"));
            }
        }
        Ok(Self {
            servers,
            user,
            stream: stream.to_owned(),
            consumer: consumer.map(str::to_owned),
        })
    }
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            match index {
                0 => write!(f, "{}://", server.scheme())?,
                _ => f.write_str(",")?,
            }
            write!(f, "{}:{}", server.host(), server.port())?;
        }
        write!(f, "/{}", self.stream)
    }
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|error| Error::option("from", error))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_servers_stream_and_consumer() {
        let address: StreamAddress = "nats://me:a%2Fb@one:4333,two/photos/worker"
            .parse()
            .expect("valid");
        assert_eq!(address.user, Some(("me".to_owned(), "a/b".to_owned())));
        assert_eq!(address.consumer.as_deref(), Some("worker"));
        assert_eq!(address.to_string(), "nats://one:4333,two:4222/photos");
    }

    #[test]
    fn invalid_addresses_are_refused_without_their_password() {
        for text in [
            "kafka://secret@host/s",
            "host/s",
            "nats://host",
            "nats:///s",
            "nats://a,,b/s",
            "nats://host/s/c/d",
            "nats://host/a.b",
            "nats://secret@host/s",
            "nats://me:secret@host/a b",
        ] {
            let error = text.parse::<StreamAddress>().expect_err(text);
            assert!(error.detail().contains("--from"), "{error}");
            assert!(!error.detail().contains("secret"), "{error}");
        }
    }
}
