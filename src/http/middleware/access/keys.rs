//! API keys: a file of their hashes, roles and rates.

use std::{
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, header};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    error::{Error, Kind, Result},
    hex,
};

/// What a key may do. Each role may do what those before it may.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Make features, search, and look at what is stored.
    Read,
    /// Store and delete items, bases and probes.
    Write,
    /// Load models, and delete and restore whole galleries.
    Admin,
}

/// The keys of a file, which can be replaced while the server runs.
#[derive(Debug)]
pub struct ApiKeys {
    path: PathBuf,
    current: ArcSwap<KeyRing>,
}

impl ApiKeys {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Io`] if it cannot be read, [`Kind::Artifact`] that says what is wrong in it.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(KeyRing::read(path, None)?);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            current,
        }))
    }

    /// Reads the file anew. Keys that stay, with the same rate, have the requests left that they
    /// had.
    pub(crate) fn reload(&self) -> Result<()> {
        let ring = KeyRing::read(&self.path, Some(&self.current.load()))?;
        self.current.store(Arc::new(ring));
        Ok(())
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The name of the key that a request came with, if it may do what `role` may.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`], [`Kind::Forbidden`] or [`Kind::RateLimited`].
    pub(crate) fn admit(&self, headers: &HeaderMap, role: Role) -> Result<Arc<str>> {
        self.current.load().admit(headers, role)
    }
}

/// The keys that are known.
struct KeyRing {
    keys: Vec<Key>,
}

struct Key {
    name: Arc<str>,
    role: Role,
    hash: [u8; 32],
    rate: Option<Rate>,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
}

/// Requests that a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    per_minute: NonZeroU32,
    burst: NonZeroU32,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    role: Role,
    sha256: String,
    requests_per_minute: Option<NonZeroU32>,
    /// Requests that may come at once; a tenth of a minute's if it is not given.
    burst: Option<NonZeroU32>,
}

impl KeyRing {
    fn read(path: &Path, before: Option<&Self>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::io(
                format_args!("reading the API keys in {}", path.display()),
                error,
            )
        })?;
        Self::parse(&text, before).map_err(|error| error.context(path.display()))
    }

    fn parse(text: &str, before: Option<&Self>) -> Result<Self> {
        let file: KeyFile =
            toml::from_str(text).map_err(|error| Error::artifact(error.message().to_owned()))?;
        if file.key.is_empty() {
            return Err(Error::artifact(
                "there is no [[key]], so nobody could ask anything; see `dinoserve keys new`",
            ));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(file.key.len());
        for entry in file.key {
            let key = Key::new(entry, before)?;
            if keys
                .iter()
                .any(|other| other.name == key.name || other.hash == key.hash)
            {
                return Err(Error::artifact(format!(
                    "the key `{}` is there twice",
                    key.name
                )));
            }
            keys.push(key);
        }
        Ok(Self { keys })
    }

    fn admit(&self, headers: &HeaderMap, role: Role) -> Result<Arc<str>> {
        let presented = presented_key(headers)?;
        let hash: [u8; 32] = Sha256::digest(presented).into();
        // Every hash is looked at, each in the same time whatever it is.
        let matching = |found: Option<usize>, (index, key): (usize, &Key)| {
            if bool::from(key.hash.ct_eq(&hash)) {
                Some(index)
            } else {
                found
            }
        };
        let key = self
            .keys
            .iter()
            .enumerate()
            .fold(None, matching)
            .map(|index| &self.keys[index]);
        let key =
            key.ok_or_else(|| Error::new(Kind::Unauthenticated, "the API key is not known"))?;
        if key.role < role {
            let detail = format!(
                "the API key `{}` has the role {}, and this takes {role}",
                key.name, key.role
            );
            return Err(Error::new(Kind::Forbidden, detail));
        }
        if let (Some(limiter), Some(rate)) = (&key.limiter, key.rate) {
            limiter.check().map_err(|not_until| {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let detail = format!(
                    "the API key `{}` has used up its {} requests a minute; try again in {:.1} s",
                    key.name,
                    rate.per_minute,
                    wait.as_secs_f64()
                );
                Error::new(Kind::RateLimited, detail)
                    .with_limit(
                        "requests_per_minute",
                        u64::from(rate.per_minute.get()),
                        "--api-keys",
                    )
                    .with_retry_after(wait)
            })?;
        }
        Ok(Arc::clone(&key.name))
    }
}

/// Tells names and roles, nothing of the keys.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.keys.iter().map(|key| (&key.name, key.role)))
            .finish()
    }
}

impl Key {
    fn new(entry: KeyEntry, before: Option<&KeyRing>) -> Result<Self> {
        let KeyEntry {
            name,
            role,
            sha256,
            requests_per_minute,
            burst,
        } = entry;
        check_name(&name)?;
        let hash = read_hash(&sha256).ok_or_else(|| {
            Error::artifact(format!(
                "the key `{name}`: sha256 must be 64 hexadecimal digits, as `dinoserve keys new` prints"
            ))
        })?;
        let rate = requests_per_minute.map(|per_minute| {
            let tenth = NonZeroU32::MIN
                .max(NonZeroU32::new(per_minute.get() / 10).unwrap_or(NonZeroU32::MIN));
            Rate {
                per_minute,
                burst: burst.unwrap_or(tenth),
            }
        });
        if burst.is_some() && rate.is_none() {
            return Err(Error::artifact(format!(
                "the key `{name}`: burst means nothing without requests_per_minute"
            )));
        }
        let known = before.and_then(|ring| {
            ring.keys
                .iter()
                .find(|key| key.hash == hash && key.rate == rate)
        });
        let make = |rate: Rate| {
            Arc::new(RateLimiter::direct(
                Quota::per_minute(rate.per_minute).allow_burst(rate.burst),
            ))
        };
        let limiter = known
            .and_then(|key| key.limiter.clone())
            .or_else(|| rate.map(make));
        Ok(Self {
            name: name.into(),
            role,
            hash,
            rate,
            limiter,
        })
    }
}

/// Names become labels of metrics and stand in logs.
fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::artifact(format!(
        "the name {name:?} of a key must be 1 to 64 letters, digits, '-', '_' and '.'"
    )))
}

fn read_hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}

fn presented_key(headers: &HeaderMap) -> Result<&[u8]> {
    let missing = || {
        Error::new(
            Kind::Unauthenticated,
            "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
        )
    };
    if let Some(key) = headers.get("x-api-key") {
        return Ok(key.as_bytes());
    }
    let value = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(missing)?
        .as_bytes();
    let (scheme, key) = value.split_at_checked(7).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") {
        Ok(key.trim_ascii())
    } else {
        Err(missing())
    }
}

/// A key that was just made. Only its hash is kept, so it can be shown once.
#[derive(Debug)]
pub struct NewKey {
    /// What clients send.
    pub secret: String,
    /// What stands in the file.
    pub entry: String,
}

impl NewKey {
    /// Makes a key of 256 random bits.
    ///
    /// # Errors
    /// [`Kind::Artifact`] for a name that cannot be one, [`Kind::Io`] if the system gives no random
    /// bits.
    pub fn random(name: &str, role: Role, requests_per_minute: Option<NonZeroU32>) -> Result<Self> {
        check_name(name)?;
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)
            .map_err(|error| Error::new(Kind::Io, format!("no random bits: {error}")))?;
        let secret = format!("ds_{}", BASE64_URL_SAFE_NO_PAD.encode(bits));
        let hash = hex::encode(&Sha256::digest(&secret));
        let rate = requests_per_minute
            .map(|rate| format!("requests_per_minute = {rate}\n"))
            .unwrap_or_default();
        let entry =
            format!("[[key]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n{rate}");
        Ok(Self { secret, entry })
    }
}
