//! What a source lists, as an item of a gallery.

use std::collections::HashSet;

use crate::{
    error::{Error, Result},
    gallery::{ItemId, Label, Metadata},
    sources::{Listed, SourceImage},
};

/// What a source lists, as an item.
pub(super) enum Entry {
    Image {
        image: Box<SourceImage>,
        id: ItemId,
        label: Option<Label>,
        metadata: Metadata,
    },
    Failed(String, Error),
    NoImage(String, Option<&'static str>),
}

impl Entry {
    /// Checks the id, label and metadata. `ids` are those of earlier images.
    pub(super) fn new(listed: Listed, ids: &mut HashSet<ItemId>) -> Self {
        let image = match listed {
            Listed::Image(image) => image,
            Listed::Failed { name, error } => return Self::Failed(name, error),
            Listed::Skipped { kind, advice, .. } => return Self::NoImage(kind, advice),
        };
        let parts = || -> Result<(ItemId, Option<Label>, Metadata)> {
            let id = ItemId::new(image.id.clone())?.of_new_item()?;
            let metadata = image.metadata.clone();
            let label = image.label.clone();
            Ok((
                id,
                label.map(Label::new).transpose()?,
                metadata
                    .map(Metadata::from_value)
                    .transpose()?
                    .unwrap_or_default(),
            ))
        };
        let name = || image.line.clone().unwrap_or_else(|| image.origin.clone());
        match parts() {
            Ok((id, label, metadata)) if ids.insert(id.clone()) => Self::Image {
                image,
                id,
                label,
                metadata,
            },
            Ok((id, ..)) => {
                let id = id.as_str();
                let detail = format!("{id:?} occurs earlier; ids must be unique");
                Self::Failed(name(), Error::option("id", detail))
            }
            Err(error) => Self::Failed(name(), error),
        }
    }
}
