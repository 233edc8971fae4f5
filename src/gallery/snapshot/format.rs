//! The parts of a snapshot file.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    gallery::{Binding, ItemId, Label, Metadata, NewItem, StoredItem, item::check_vector},
};

pub(super) const MAGIC: &[u8; 8] = b"DINOGLRY";
pub(super) const VERSION: u32 = 1;
/// Maximum size of the header or of a record, in bytes: a hundred times that of an item with its
/// thumbnail.
pub(super) const MAX_RECORD_BYTES: usize = 16 << 20;
/// Size of the buffers for reading and writing, in bytes.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Size of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnapshotSummary {
    /// Number of items.
    pub items: u64,
    /// Length of the file, in bytes.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) binding: Binding,
}

/// An item. Its place is the position of the record.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, optional, tag = "2")]
    label: Option<String>,
    /// A JSON object.
    #[prost(string, tag = "3")]
    metadata: String,
    #[prost(float, repeated, tag = "4")]
    vector: Vec<f32>,
    /// Empty for an item without features.
    #[prost(float, repeated, tag = "5")]
    features: Vec<f32>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    thumbnail: Option<Bytes>,
}

impl SnapshotRecord {
    pub(super) fn new(stored: StoredItem) -> Result<Self> {
        let item = stored.item;
        let metadata = serde_json::to_string(&item.metadata)
            .internal(format_args!("encoding the metadata of {}", item.id))?;
        Ok(Self {
            id: item.id.into(),
            label: item.label.map(String::from),
            metadata,
            vector: stored.vector,
            features: stored.features.unwrap_or_default(),
            thumbnail: stored.thumbnail,
        })
    }

    pub(super) fn into_item(self, binding: &Binding) -> Result<NewItem> {
        check_vector(&self.vector, binding.dim)?;
        if !self.features.is_empty() {
            binding.check_features(&self.features)?;
        }
        Ok(NewItem {
            id: ItemId::new(self.id)?.of_new_item()?,
            label: self.label.map(Label::new).transpose()?,
            metadata: Metadata::parse(&self.metadata)?,
            vector: self.vector,
            features: Some(self.features).filter(|features| !features.is_empty()),
            thumbnail: self.thumbnail,
        })
    }
}

pub(super) fn damaged(damage: impl std::fmt::Display) -> Error {
    let detail = format!("the snapshot is damaged: {damage}");
    Error::new(Kind::Malformed, detail)
}
