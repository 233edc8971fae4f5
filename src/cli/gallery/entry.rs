//! What a source lists, as an item of a gallery.

use std::collections::HashSet;

use crate::{
    error::{Error, Result},
    gallery::{ItemId, Label, Metadata},
    sources::{Listed, SourceImage},
};

/// What a source lists.
pub(super) enum Entry {
    Image(EntryImage),
    Failed(String, Error),
    NoImage(String, Option<&'static str>),
}

/// An image that can become an item.
pub(super) struct EntryImage {
    pub(super) image: Box<SourceImage>,
    pub(super) id: ItemId,
    pub(super) label: Option<Label>,
    pub(super) metadata: Metadata,
}

impl Entry {
    /// Checks the id, label and metadata. `ids` are those of earlier images.
    pub(super) fn new(listed: Listed, ids: &mut HashSet<ItemId>) -> Self {
        let image = match listed {
            Listed::Image(image) => image,
            Listed::Failed { name, error } => return Self::Failed(name, error),
            Listed::Skipped { kind, advice, .. } => return Self::NoImage(kind, advice),
        };
        let name = image.line.clone().unwrap_or_else(|| image.origin.clone());
        match EntryImage::new(image) {
            Ok(entry) if ids.insert(entry.id.clone()) => Self::Image(entry),
            Ok(entry) => {
                let id = entry.id.as_str();
                let detail = format!("{id:?} occurs earlier; ids must be unique");
                Self::Failed(name, Error::option("id", detail))
            }
            Err(error) => Self::Failed(name, error),
        }
    }
}

impl EntryImage {
    /// Checks the id, label and metadata.
    pub(super) fn new(image: Box<SourceImage>) -> Result<Self> {
        let id = ItemId::new(image.id.clone())?.of_new_item()?;
        let label = image.label.clone().map(Label::new).transpose()?;
        let metadata = image.metadata.clone().map(Metadata::from_value);
        Ok(Self {
            image,
            id,
            label,
            metadata: metadata.transpose()?.unwrap_or_default(),
        })
    }
}
