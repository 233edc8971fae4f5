//! API keys: a file with their hashes, roles and rates.

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
    http::{self, Reason, Rejection},
};

/// Permissions of a key. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Compute features, search, and read what is stored.
    Read,
    /// Store, change and delete items, bases and probes.
    Write,
    /// Load models, and delete and restore whole galleries.
    Admin,
}

/// The keys of a file, which can be reloaded while the server runs.
#[derive(Debug)]
pub struct ApiKeys {
    path: PathBuf,
    current: ArcSwap<KeyRing>,
}

impl ApiKeys {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`Kind::Io`] if the file cannot be read, [`Kind::Artifact`] if it is not valid.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(KeyRing::read(path, None)?);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            current,
        }))
    }

    /// Reads the file again. Keys that stay with the same rate keep the state of their limiter.
    pub(crate) fn reload(&self) -> Result<()> {
        let ring = KeyRing::read(&self.path, Some(&self.current.load()))?;
        self.current.store(Arc::new(ring));
        Ok(())
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Returns the name of a request's key if the key has at least `role`.
    pub(crate) fn admit(&self, headers: &HeaderMap, role: Role) -> http::Result<Arc<str>> {
        self.current.load().admit(headers, role)
    }
}

/// The known keys.
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

/// Rate limit of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    per_minute: NonZeroU32,
    burst: NonZeroU32,
}

/// Content of a key file.
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
    /// Maximum number of requests at once; by default a tenth of `requests_per_minute`.
    burst: Option<NonZeroU32>,
}

impl KeyRing {
    fn read(path: &Path, before: Option<&Self>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let reading = format!("reading the API keys in {}", path.display());
            Error::io(reading, error)
        })?;
        Self::parse(&text, before).map_err(|error| error.context(path.display()))
    }

    fn parse(text: &str, before: Option<&Self>) -> Result<Self> {
        let file: KeyFile =
            toml::from_str(text).map_err(|error| Error::artifact(error.message().to_owned()))?;
        if file.key.is_empty() {
            return Err(Error::artifact(
                "the file has no [[key]], so every request would be rejected; add one with \
                 `dinoserve keys new`",
            ));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(file.key.len());
        for entry in file.key {
            let key = Key::new(entry, before)?;
            let is_same = |other: &Key| other.name == key.name || other.hash == key.hash;
            if keys.iter().any(is_same) {
                let detail = format!("the key `{}` is listed twice", key.name);
                return Err(Error::artifact(detail));
            }
            keys.push(key);
        }
        Ok(Self { keys })
    }

    fn admit(&self, headers: &HeaderMap, role: Role) -> http::Result<Arc<str>> {
        let presented = presented_key(headers)?;
        let hash: [u8; 32] = Sha256::digest(presented).into();
        // Compares every hash, each in constant time.
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.hash.ct_eq(&hash)) {
                found = Some(key);
            }
        }
        let key = found
            .ok_or_else(|| Rejection::new(Reason::Unauthenticated, "the API key is not known"))?;
        if key.role < role {
            let detail = format!(
                "the API key `{}` has the role {}, and this needs {role}",
                key.name, key.role
            );
            return Err(Rejection::new(Reason::Forbidden, detail));
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
                let limit = u64::from(rate.per_minute.get());
                Rejection::new(Reason::RateLimited, detail)
                    .with_limit("requests_per_minute", limit, "--api-keys")
                    .with_retry_after(wait)
            })?;
        }
        Ok(Arc::clone(&key.name))
    }
}

/// Shows names and roles, never hashes.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.keys.iter().map(|key| (&key.name, key.role)))
            .finish()
    }
}

impl Key {
    fn new(entry: KeyEntry, before: Option<&KeyRing>) -> Result<Self> {
        let name = entry.name;
        check_name(&name)?;
        let hash = read_hash(&entry.sha256).ok_or_else(|| {
            Error::artifact(format!(
                "the key `{name}`: sha256 must be 64 hexadecimal digits, as printed by \
                 `dinoserve keys new`"
            ))
        })?;
        let rate = entry.requests_per_minute.map(|per_minute| {
            let tenth = NonZeroU32::new(per_minute.get() / 10).unwrap_or(NonZeroU32::MIN);
            let burst = entry.burst.unwrap_or(tenth);
            Rate { per_minute, burst }
        });
        if entry.burst.is_some() && rate.is_none() {
            return Err(Error::artifact(format!(
                "the key `{name}`: burst has no effect without requests_per_minute; add it"
            )));
        }
        let mut known = before.iter().flat_map(|ring| &ring.keys);
        let known = known.find(|key| key.hash == hash && key.rate == rate);
        let limiter = known.and_then(|key| key.limiter.clone()).or_else(|| {
            let Rate { per_minute, burst } = rate?;
            let quota = Quota::per_minute(per_minute).allow_burst(burst);
            Some(Arc::new(RateLimiter::direct(quota)))
        });
        Ok(Self {
            name: name.into(),
            role: entry.role,
            hash,
            rate,
            limiter,
        })
    }
}

/// Checks a name, which becomes a label of metrics and part of log lines.
fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(is_plain) {
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

fn presented_key(headers: &HeaderMap) -> http::Result<&[u8]> {
    let detail = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`";
    let missing = || Rejection::new(Reason::Unauthenticated, detail);
    if let Some(key) = headers.get("x-api-key") {
        return Ok(key.as_bytes());
    }
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = value.as_bytes().split_at_checked(7).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") {
        Ok(key.trim_ascii())
    } else {
        Err(missing())
    }
}

/// A new key. Only its hash is stored, so the secret can be shown once.
#[derive(Debug)]
pub struct NewKey {
    /// Secret that clients send.
    pub secret: String,
    /// Entry for the key file.
    pub entry: String,
}

impl NewKey {
    /// Generates a key of 256 random bits.
    ///
    /// # Errors
    /// [`Kind::Artifact`] for an invalid name, [`Kind::Io`] if the system gives no random
    /// bits.
    pub fn random(
        name: &str,
        role: Role,
        requests_per_minute: Option<NonZeroU32>,
        burst: Option<NonZeroU32>,
    ) -> Result<Self> {
        check_name(name)?;
        if burst.is_some() && requests_per_minute.is_none() {
            return Err(Error::artifact(
                "a burst has no effect without requests per minute",
            ));
        }
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)
            .map_err(|error| Error::new(Kind::Io, format!("reading random bits: {error}")))?;
        let secret = format!("ds_{}", BASE64_URL_SAFE_NO_PAD.encode(bits));
        let hash = hex::encode(&Sha256::digest(&secret));
        let mut entry =
            format!("[[key]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n");
        let rate = [
            ("requests_per_minute", requests_per_minute),
            ("burst", burst),
        ];
        for (name, value) in rate {
            if let Some(value) = value {
                entry.push_str(&format!("{name} = {value}\n"));
            }
        }
        Ok(Self { secret, entry })
    }
}
