//! Format of a map in the store.

use std::collections::HashMap;

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::super::gallery_documents::GalleryDocument;
use crate::{
    error::{Error, Result, ResultExt},
    features::layout::Point,
    gallery::{DocumentKey, GalleryName},
};

const ENCODING: &str = "encoding a map";
/// Name of [`About`] in the metadata.
const ABOUT: &str = "about";

/// Positions of the items of a gallery.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredMap {
    /// Number of the gallery.
    pub(super) gallery: u64,
    /// Time when items were last placed, in milliseconds since 1970.
    pub(super) made_ms: u64,
    /// The items.
    pub(super) entries: Vec<MapEntry>,
    /// Their positions.
    pub(super) points: Vec<Point>,
}

/// An item as a map knows it: a place has another vector after its item is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MapEntry {
    /// Place in the order of the gallery.
    pub(super) place: u64,
    /// CRC-32 of the vector.
    crc32: u32,
}

#[derive(Serialize, Deserialize)]
struct About {
    gallery: u64,
    made_ms: u64,
}

impl MapEntry {
    pub(super) fn new(place: u64, vector: &[f32]) -> Self {
        Self {
            place,
            crc32: crc32fast::hash(bytemuck::cast_slice(vector)),
        }
    }
}

impl StoredMap {
    /// Encodes a safetensors file with `places` `[items]`, `checksums` `[items]` and `points`
    /// `[items, 2]`, and the rest as metadata.
    pub(super) fn encode(&self) -> Result<Bytes> {
        let about = About {
            gallery: self.gallery,
            made_ms: self.made_ms,
        };
        let about = serde_json::to_string(&about).internal(ENCODING)?;
        let count = self.entries.len();
        let places: Vec<u8> = self
            .entries
            .iter()
            .flat_map(|entry| entry.place.to_le_bytes())
            .collect();
        let checksums: Vec<u8> = self
            .entries
            .iter()
            .flat_map(|entry| entry.crc32.to_le_bytes())
            .collect();
        let points: Vec<u8> = self
            .points
            .iter()
            .flatten()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let view = |kind, shape, bytes| TensorView::new(kind, shape, bytes).internal(ENCODING);
        let tensors = [
            ("places", view(Dtype::U64, vec![count], &places)?),
            ("checksums", view(Dtype::U32, vec![count], &checksums)?),
            ("points", view(Dtype::F32, vec![count, 2], &points)?),
        ];
        let metadata = HashMap::from([(ABOUT.to_owned(), about)]);
        let file = safetensors::serialize(tensors, Some(metadata)).internal(ENCODING)?;
        Ok(file.into())
    }
}

impl GalleryDocument for StoredMap {
    fn key(gallery: &GalleryName) -> DocumentKey<'_> {
        DocumentKey::of_map(gallery)
    }

    /// Decodes the file of [`StoredMap::encode`].
    fn decode(document: &[u8]) -> Result<Self> {
        let damaged = |damage: &dyn std::fmt::Display| {
            Error::damaged(format!("a stored map is damaged: {damage}"))
        };
        let (_, head) = SafeTensors::read_metadata(document).map_err(|error| damaged(&error))?;
        let about = head.metadata().as_ref().and_then(|about| about.get(ABOUT));
        let about = about.map(String::as_str).unwrap_or_default();
        let about: About = serde_json::from_str(about).map_err(|error| damaged(&error))?;
        let file = SafeTensors::deserialize(document).map_err(|error| damaged(&error))?;
        let tensor = |name, kind, width: usize| {
            let tensor = file.tensor(name).map_err(|error| damaged(&error))?;
            let bytes = tensor.data();
            match tensor.dtype() == kind && bytes.len().is_multiple_of(width) {
                true => Ok(bytes.to_vec()),
                false => Err(damaged(&format_args!("`{name}` has another form"))),
            }
        };
        let places = tensor("places", Dtype::U64, 8)?;
        let checksums = tensor("checksums", Dtype::U32, 4)?;
        let points = tensor("points", Dtype::F32, 8)?;
        let count = places.len() / 8;
        if checksums.len() / 4 != count || points.len() / 8 != count {
            return Err(damaged(&"its parts have different lengths"));
        }
        let entries = places.as_chunks().0.iter().zip(checksums.as_chunks().0);
        let entries = entries.map(|(place, crc32)| MapEntry {
            place: u64::from_le_bytes(*place),
            crc32: u32::from_le_bytes(*crc32),
        });
        let points = points.as_chunks::<8>().0.iter().map(|point| {
            let [a, b, c, d, e, f, g, h] = *point;
            [[a, b, c, d], [e, f, g, h]].map(f32::from_le_bytes)
        });
        let stored = Self {
            gallery: about.gallery,
            made_ms: about.made_ms,
            entries: entries.collect(),
            points: points.collect(),
        };
        match stored
            .points
            .iter()
            .flatten()
            .all(|value| value.is_finite())
        {
            true => Ok(stored),
            false => Err(damaged(&"a position is not finite")),
        }
    }

    fn gallery(&self) -> u64 {
        self.gallery
    }
}
