//! An item as a row of its table, with a checksum over all columns.

use bytes::Bytes;
use crc32fast::Hasher;
use pgvector::Vector;
use tokio_postgres::Row;

use super::failure::Outcome;
use crate::{
    error::{Error, Result, ResultExt},
    gallery::{Item, ItemId, Label, Metadata, NewItem, Parts, StoredItem},
};

pub(super) const ITEM: &str = "place, stored_ms, id, label, metadata";

/// Returns the columns of a [`StoredItem`]; parts that are not requested are not read.
pub(super) fn columns(parts: Parts) -> String {
    let part = |requested, column: &'static str, null: &'static str| {
        if requested { column } else { null }
    };
    format!(
        "{ITEM}, {} AS vector, {} AS features, {} AS thumbnail",
        part(parts.vector, "vector", "NULL::vector"),
        part(parts.features, "features", "NULL::bytea"),
        part(parts.thumbnail, "thumbnail", "NULL::bytea"),
    )
}

pub(super) fn item(row: &Row) -> Outcome<Item> {
    let place = row.try_get::<_, i64>("place")?.unsigned_abs();
    let id: &[u8] = row.try_get("id")?;
    let label: Option<String> = row.try_get("label")?;
    let id = String::from_utf8(id.to_vec()).map_err(|error| unreadable(place, &error))?;
    Ok(Item {
        id: ItemId::new(id)?,
        place,
        label: label.map(Label::new).transpose()?,
        metadata: Metadata::parse(row.try_get("metadata")?)
            .map_err(|error| unreadable(place, &error))?,
        stored_ms: row.try_get::<_, i64>("stored_ms")?.unsigned_abs(),
    })
}

pub(super) fn stored_item(row: &Row) -> Outcome<StoredItem> {
    let item = item(row)?;
    let features: Option<&[u8]> = row.try_get("features")?;
    let features =
        features.map(|bytes| floats(bytes).ok_or_else(|| unreadable(item.place, &"features")));
    let vector: Option<Vector> = row.try_get("vector")?;
    let thumbnail: Option<&[u8]> = row.try_get("thumbnail")?;
    Ok(StoredItem {
        vector: vector.map(Vec::from).unwrap_or_default(),
        features: features.transpose()?,
        thumbnail: thumbnail.map(Bytes::copy_from_slice),
        item,
    })
}

fn unreadable(place: u64, what: &dyn std::fmt::Display) -> Error {
    let detail = format!("the item at place {place} is damaged: {what}");
    Error::damaged(detail)
}

fn floats(bytes: &[u8]) -> Option<Vec<f32>> {
    let (numbers, rest) = bytes.as_chunks();
    let values = numbers.iter().copied().map(f32::from_le_bytes);
    rest.is_empty().then(|| values.collect())
}

fn bytes_of(floats: &[f32]) -> Vec<u8> {
    floats.iter().copied().flat_map(f32::to_le_bytes).collect()
}

/// The columns of a row as they are sent.
pub(super) struct ItemRow<'a> {
    pub(super) place: i64,
    pub(super) stored_ms: i64,
    pub(super) id: &'a [u8],
    pub(super) label: Option<&'a str>,
    pub(super) metadata: String,
    pub(super) vector: Vector,
    pub(super) features: Option<Vec<u8>>,
    pub(super) thumbnail: Option<&'a [u8]>,
}

impl<'a> ItemRow<'a> {
    pub(super) fn new(place: i64, stored_ms: i64, item: &'a NewItem) -> Result<Self> {
        Ok(Self {
            place,
            stored_ms,
            id: item.id.as_str().as_bytes(),
            label: item.label.as_ref().map(Label::as_str),
            metadata: serde_json::to_string(&item.metadata).internal("encoding metadata")?,
            vector: Vector::from(item.vector.clone()),
            features: item.features.as_deref().map(bytes_of),
            thumbnail: item.thumbnail.as_deref(),
        })
    }

    /// Reads a row, to verify its checksum.
    pub(super) fn read(row: &'a Row) -> Outcome<Self> {
        Ok(Self {
            place: row.try_get("place")?,
            stored_ms: row.try_get("stored_ms")?,
            id: row.try_get("id")?,
            label: row.try_get("label")?,
            metadata: row.try_get("metadata")?,
            vector: row.try_get("vector")?,
            features: row
                .try_get::<_, Option<&[u8]>>("features")?
                .map(<[u8]>::to_vec),
            thumbnail: row.try_get("thumbnail")?,
        })
    }

    /// Returns the CRC-32 of all columns. The length of each is included, so that the checksum
    /// changes if bytes move from one column to the next.
    pub(super) fn checksum(&self) -> i64 {
        let mut hasher = Hasher::new();
        let mut part = |bytes: Option<&[u8]>| {
            let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
            hasher.update(&length.to_le_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        part(Some(&self.place.to_le_bytes()));
        part(Some(&self.stored_ms.to_le_bytes()));
        part(Some(self.id));
        part(self.label.map(str::as_bytes));
        part(Some(self.metadata.as_bytes()));
        part(Some(&bytes_of(self.vector.as_slice())));
        part(self.features.as_deref());
        part(self.thumbnail);
        i64::from(hasher.finalize())
    }
}
