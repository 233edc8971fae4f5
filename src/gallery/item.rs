//! Items of a gallery: what is stored, and what is read back.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ItemId, Label};
use crate::error::{Error, Kind, Result, ResultExt};

/// A JSON object of at most 16 KiB, returned unchanged. Filters see its members that are strings,
/// numbers, booleans, or lists of these.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Metadata(Map<String, Value>);

impl Metadata {
    /// Maximum size of the object as compact JSON, in bytes.
    pub const MAX_BYTES: usize = 16 << 10;

    /// Checks an object.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] above 16 KiB; [`Kind::InvalidOption`] for a NUL character, which
    /// PostgreSQL cannot store. The other constructors also return it for invalid JSON.
    pub fn new(object: Map<String, Value>) -> Result<Self> {
        let json = serde_json::to_vec(&object).internal("encoding metadata")?;
        let bytes = json.len();
        if bytes > Self::MAX_BYTES {
            let max = Self::MAX_BYTES;
            let detail =
                format!("the metadata takes {bytes} bytes of JSON, more than the limit of {max}");
            return Err(Error::new(Kind::TooLarge, detail));
        }
        if object.iter().any(member_holds_nul) {
            return Err(Error::option("metadata", "holds a NUL character"));
        }
        Ok(Self(object))
    }

    /// Checks a JSON value.
    pub fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Object(object) => Self::new(object),
            _ => Err(Error::option(
                "metadata",
                "must be a JSON object, such as {\"year\": 2024}",
            )),
        }
    }

    /// Parses and checks JSON text.
    pub fn parse(json: &str) -> Result<Self> {
        let value = serde_json::from_str(json)
            .map_err(|error| Error::option("metadata", format!("not valid JSON: {error}")))?;
        Self::from_value(value)
    }

    /// Returns the object.
    pub fn object(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns whether the object has no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Map<String, Value>> for Metadata {
    type Error = Error;

    fn try_from(object: Map<String, Value>) -> Result<Self> {
        Self::new(object)
    }
}

/// An item to store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// Id within the gallery.
    pub id: ItemId,
    /// Class label.
    pub label: Option<Label>,
    /// Metadata of the client.
    pub metadata: Metadata,
    /// Vector that is searched: `[binding.dim]`, finite, of length 1.
    pub vector: Vec<f32>,
    /// Features for probes: `[2 * token width]`, CLS and then the mean of the patch tokens, not
    /// normalized. `None` for items that were sent as vectors. A store may keep them in half
    /// precision.
    pub features: Option<Vec<f32>>,
    /// Thumbnail, a small JPEG.
    pub thumbnail: Option<Bytes>,
}

impl NewItem {
    /// Returns the item that a reader gets.
    pub(super) fn stored_at(self, place: u64, stored_ms: u64) -> Item {
        Item {
            id: self.id,
            place,
            label: self.label,
            metadata: self.metadata,
            stored_ms,
        }
    }
}

/// Changes of a stored item. What is `None` stays as it was.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemChange {
    /// New label, or `Some(None)` to remove it.
    pub label: Option<Option<Label>>,
    /// New metadata.
    pub metadata: Option<Metadata>,
}

impl ItemChange {
    /// Returns the item to store in place of `stored`, which has all parts.
    pub(super) fn applied_to(&self, stored: StoredItem) -> NewItem {
        let Item {
            id,
            label,
            metadata,
            ..
        } = stored.item;
        NewItem {
            id,
            label: self.label.clone().unwrap_or(label),
            metadata: self.metadata.clone().unwrap_or(metadata),
            vector: stored.vector,
            features: stored.features,
            thumbnail: stored.thumbnail,
        }
    }
}

/// A stored item without its vector, features and thumbnail.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Id within the gallery.
    pub id: ItemId,
    /// Place in the order of the gallery, from 1; never reused for another item.
    pub place: u64,
    /// Class label.
    pub label: Option<Label>,
    /// Metadata of the client.
    pub metadata: Metadata,
    /// Time of the last write, in milliseconds since 1970.
    pub stored_ms: u64,
}

/// A stored item with the [`Parts`] that were requested; other parts are empty or `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredItem {
    /// Id, label and metadata.
    pub item: Item,
    /// Vector, as [`NewItem::vector`].
    pub vector: Vec<f32>,
    /// Features for probes, as [`NewItem::features`].
    pub features: Option<Vec<f32>>,
    /// Thumbnail, as [`NewItem::thumbnail`].
    pub thumbnail: Option<Bytes>,
}

/// Parts of an item to read in addition to its id, label and metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// The vector that is searched.
    pub vector: bool,
    /// The features for probes.
    pub features: bool,
    /// The thumbnail.
    pub thumbnail: bool,
}

impl Parts {
    /// Only id, label and metadata.
    pub const NONE: Self = Self {
        vector: false,
        features: false,
        thumbnail: false,
    };
    /// Everything that is stored.
    pub const ALL: Self = Self {
        vector: true,
        features: true,
        thumbnail: true,
    };
}

/// Largest difference of a vector's length from 1, four times that of a rounding to half precision.
const LENGTH_TOLERANCE: f64 = 2e-3;

/// Checks that a vector has `dim` values and length 1.
pub(super) fn check_vector(vector: &[f32], dim: usize) -> Result<()> {
    check_width(vector, dim)?;
    let squares = vector.iter().map(|&value| f64::from(value).powi(2));
    let length = squares.sum::<f64>().sqrt();
    if (length - 1.0).abs() <= LENGTH_TOLERANCE {
        return Ok(());
    }
    let detail = format_args!("has length {length:.4}; the vectors of a gallery have length 1");
    Err(Error::option("vector", detail))
}

pub(crate) fn check_width(vector: &[f32], dim: usize) -> Result<()> {
    if vector.len() == dim {
        return Ok(());
    }
    let width = vector.len();
    let detail = format!("has {width} values; the vectors of this gallery have {dim}");
    Err(Error::option("vector", detail))
}

/// Returns whether the value holds a NUL character, at any depth.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(object) => object.iter().any(member_holds_nul),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn member_holds_nul((name, value): (&String, &Value)) -> bool {
    name.contains('\0') || holds_nul(value)
}
