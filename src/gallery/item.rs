//! What is stored, and which names, ids, labels and metadata it may have.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// Name of a gallery, a probe or a basis: 1 to 64 of `a-z`, `0-9`, `-`, `_`, the first a letter or
/// digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GalleryName(String);

impl GalleryName {
    /// The name that is meant when none is given.
    pub const DEFAULT: &str = "default";

    /// Checks a name.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] that says what a name may be.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first = name.bytes().next().is_some_and(fit);
        if first
            && name.len() <= 64
            && name
                .bytes()
                .all(|byte| fit(byte) || byte == b'-' || byte == b'_')
        {
            return Ok(Self(name));
        }
        let detail = format!(
            "{name:?} is no name; names have 1 to 64 of a-z, 0-9, - and _, and begin with a letter or digit"
        );
        Err(Error::new(Kind::InvalidOption, detail))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for GalleryName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl TryFrom<String> for GalleryName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<GalleryName> for String {
    fn from(name: GalleryName) -> Self {
        name.0
    }
}

impl std::str::FromStr for GalleryName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl fmt::Display for GalleryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of an item within its gallery: 1 to 512 bytes of UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemId(String);

impl ItemId {
    /// Most bytes of an id.
    pub const MAX_BYTES: usize = 512;

    /// Checks an id.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for an empty id or one of more than 512 bytes.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        match id.len() {
            0 => Err(Error::option("id", "empty; an id has 1 to 512 bytes")),
            length if length > Self::MAX_BYTES => Err(Error::option(
                "id",
                format!(
                    "{length} bytes long; an id has 1 to {} bytes",
                    Self::MAX_BYTES
                ),
            )),
            _ => Ok(Self(id)),
        }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ItemId {
    type Error = Error;

    fn try_from(id: String) -> Result<Self> {
        Self::new(id)
    }
}

impl From<ItemId> for String {
    fn from(id: ItemId) -> Self {
        id.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an item shows: 1 to 256 bytes of UTF-8 without NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// Most bytes of a label.
    pub const MAX_BYTES: usize = 256;

    /// Checks a label.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for an empty or too long label, or one with a NUL in it.
    pub fn new(label: impl Into<String>) -> Result<Self> {
        let label = label.into();
        let wrong = match label.len() {
            0 => "empty; leave it out for an item without a label".to_owned(),
            length if length > Self::MAX_BYTES => {
                format!(
                    "{length} bytes long; a label has 1 to {} bytes",
                    Self::MAX_BYTES
                )
            }
            _ if label.contains('\0') => "holds a NUL character".to_owned(),
            _ => return Ok(Self(label)),
        };
        Err(Error::option("label", wrong))
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = Error;

    fn try_from(label: String) -> Result<Self> {
        Self::new(label)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A JSON object of at most 16 KiB that comes back as it was given. Its members that are texts,
/// numbers, truth values, or lists of these can be filtered by.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Map<String, Value>")]
pub struct Metadata(serde_json::Map<String, Value>);

impl Metadata {
    /// Most bytes of the object as compact JSON.
    pub const MAX_BYTES: usize = 16 << 10;

    /// Checks an object.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] above 16 KiB; [`Kind::InvalidOption`] if a text in it holds a NUL, which
    /// PostgreSQL cannot keep.
    pub fn new(object: serde_json::Map<String, Value>) -> Result<Self> {
        let bytes = serde_json::to_vec(&object)
            .map_err(|error| Error::internal(error.to_string()))?
            .len();
        if bytes > Self::MAX_BYTES {
            let detail = format!(
                "the metadata takes {bytes} bytes of JSON, more than the limit of {}",
                Self::MAX_BYTES
            );
            return Err(Error::new(Kind::TooLarge, detail));
        }
        if object
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value))
        {
            return Err(Error::option("metadata", "holds a NUL character"));
        }
        Ok(Self(object))
    }

    /// From any JSON value.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for what is no object, and as [`Metadata::new`].
    pub fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Object(object) => Self::new(object),
            _ => Err(Error::option(
                "metadata",
                "must be a JSON object, such as {\"year\": 2024}",
            )),
        }
    }

    /// From JSON text.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for what is no JSON, and as [`Metadata::from_value`].
    pub fn parse(json: &str) -> Result<Self> {
        let value = serde_json::from_str(json)
            .map_err(|error| Error::option("metadata", format!("no JSON: {error}")))?;
        Self::from_value(value)
    }

    /// The object.
    pub fn object(&self) -> &serde_json::Map<String, Value> {
        &self.0
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(object) => object
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl TryFrom<serde_json::Map<String, Value>> for Metadata {
    type Error = Error;

    fn try_from(object: serde_json::Map<String, Value>) -> Result<Self> {
        Self::new(object)
    }
}

/// An item to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// Its id.
    pub id: ItemId,
    /// What it shows.
    pub label: Option<Label>,
    /// What else is known of it.
    pub metadata: Metadata,
    /// `[binding.dim]`, finite, of length 1: what is searched.
    pub vector: Vec<f32>,
    /// `[2·width of a token]`: CLS, then the mean of the patch tokens, as the model gives them. For
    /// probes; items that came as vectors have none. May be kept in half precision.
    pub features: Option<Vec<f32>>,
    /// A small JPEG.
    pub thumbnail: Option<Bytes>,
}

/// What is known of a stored item.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// Its place in the order of the gallery, from 1; never given to another item.
    pub place: u64,
    /// What it shows.
    pub label: Option<Label>,
    /// What else is known of it.
    pub metadata: Metadata,
    /// When it was last stored, in milliseconds since 1970.
    pub stored_ms: u64,
}

/// An item with what else is stored of it. What was not asked for is empty or `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredItem {
    /// The item.
    pub item: Item,
    /// As [`NewItem::vector`].
    pub vector: Vec<f32>,
    /// As [`NewItem::features`].
    pub features: Option<Vec<f32>>,
    /// As [`NewItem::thumbnail`].
    pub thumbnail: Option<Bytes>,
}
