//! A gallery that a command fills with images.

use std::{fs, path::Path, time::UNIX_EPOCH};

use clap::Args;

use super::{entry::EntryImage, selection::OneGallery};
use crate::{
    cli::flags::EmbedFlags,
    error::{Kind, Result},
    gallery::{Binding, GalleryName, ItemId, NewItem, Parts, Written},
    service::{
        Extractor, Galleries, ImageOptions, InputOptions, ModelChoice, NewEntry, QueryInput,
    },
};

/// Maximum number of items in a transaction.
pub(super) const BATCH_ITEMS: usize = 64;

/// The gallery that a command fills, and how.
#[derive(Debug, Args)]
pub(super) struct FillFlags {
    /// Store items again whose id is in the gallery; without this flag they are skipped
    #[arg(long)]
    pub(super) replace: bool,

    #[command(flatten)]
    pub(super) embed: EmbedFlags,

    #[command(flatten)]
    pub(super) gallery: OneGallery,
}

/// What has become of stored items so far.
#[derive(Debug, Default)]
pub(super) struct StoredCounts {
    pub(super) stored: usize,
    pub(super) replaced: usize,
    /// Those that were stored already.
    pub(super) skipped: usize,
}

impl StoredCounts {
    pub(super) fn add(&mut self, written: Vec<Written>) {
        for written in written {
            match written {
                Written::Created { .. } => self.stored += 1,
                Written::Replaced { .. } => self.replaced += 1,
                Written::Kept { .. } => self.skipped += 1,
            }
        }
    }

    pub(super) fn done(&self) -> usize {
        self.stored + self.replaced + self.skipped
    }
}

/// A gallery to fill, and how.
pub(super) struct Filling<'a> {
    extractor: &'a Extractor,
    galleries: &'a Galleries,
    name: &'a GalleryName,
    binding: Binding,
    image: ImageOptions,
    replace: bool,
}

/// What an image has become.
pub(super) enum Prepared {
    Item {
        item: Box<NewItem>,
        is_dim: bool,
    },
    /// The gallery has an item of this id.
    Present {
        /// Whether the file was changed after that.
        is_newer: bool,
    },
}

impl<'a> Filling<'a> {
    /// Checks that the options fit the gallery, which is created with its first items.
    pub(super) async fn new(
        extractor: &'a Extractor,
        galleries: &'a Galleries,
        flags: &'a FillFlags,
    ) -> Result<Self> {
        let name = &flags.gallery.name;
        let vector = &flags.embed.run.vector;
        let options = InputOptions {
            image: vector.image_options(),
            vectors: vector.vector_options(),
        };
        let model = ModelChoice::only(extractor.clone());
        let (_, binding) = galleries
            .binding_to_write(&model, name, &options, true)
            .await?;
        Ok(Self {
            extractor,
            galleries,
            name,
            binding,
            image: options.image,
            replace: flags.replace,
        })
    }

    /// Makes the item of an image, unless it is stored already.
    ///
    /// # Errors
    /// What is wrong with the image or with the work over all of them, see
    /// [`Kind::is_about_image`].
    pub(super) async fn prepare(&self, entry: EntryImage) -> Result<Prepared> {
        let EntryImage {
            image,
            id,
            label,
            metadata,
        } = entry;
        if !self.replace
            && let Some(stored_ms) = self.stored_ms(&id).await?
        {
            let modified = image.path().and_then(modified_ms);
            return Ok(Prepared::Present {
                is_newer: modified > Some(stored_ms),
            });
        }
        let entry = NewEntry {
            id,
            label,
            metadata,
            input: QueryInput::Image(image.read().await?),
            features: None,
        };
        let made = self
            .galleries
            .new_item(self.extractor, entry, &self.binding, &self.image)
            .await?;
        Ok(Prepared::Item {
            is_dim: made.stages.has_dim_image,
            item: Box::new(made.value),
        })
    }

    /// Returns when the item of this id was stored, in milliseconds since 1970.
    async fn stored_ms(&self, id: &ItemId) -> Result<Option<u64>> {
        match self.galleries.store().get(self.name, id, Parts::NONE).await {
            Ok(found) => Ok(found.map(|found| found.item.stored_ms)),
            // The first items create the gallery.
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores items in one transaction. Returns one entry per item.
    pub(super) async fn store(&self, items: Vec<NewItem>) -> Result<Vec<Written>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let store = self.galleries.store();
        match self.replace {
            true => store.put(self.name, &self.binding, items).await,
            // Another process may have stored them meanwhile.
            false => store.put_new(self.name, &self.binding, items).await,
        }
    }
}

/// Returns the time at which a file was changed, in milliseconds since 1970.
pub(super) fn modified_ms(path: &Path) -> Option<u64> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}
