//! The items of a gallery one by one, for exports.

use futures_util::TryStreamExt;
use tokio::runtime::Runtime;

use super::selection::OneGallery;
use crate::{
    cli::{
        executor::async_runtime,
        progress::{Progress, Unit},
    },
    error::{Error, Result},
    gallery::{GalleryInfo, ItemStream, OpenMode, Parts, StoredItem, read_whole},
};

/// Reads the items with their vectors, and shows the progress.
pub(super) struct Items {
    runtime: Runtime,
    stream: ItemStream,
    progress: Progress,
    info: GalleryInfo,
    count: u64,
}

impl Items {
    pub(super) fn open(gallery: &OneGallery) -> anyhow::Result<Self> {
        let runtime = async_runtime()?;
        let parts = Parts {
            vector: true,
            ..Parts::NONE
        };
        let (info, stream) = runtime.block_on(async {
            let store = gallery.open(OpenMode::Read).await?;
            anyhow::Ok(read_whole(&store, &gallery.name, parts).await?)
        })?;
        Ok(Self {
            runtime,
            stream,
            progress: Progress::new(Unit::Items),
            info,
            count: 0,
        })
    }

    /// Width of the vectors.
    pub(super) fn dim(&self) -> usize {
        self.info.binding.dim
    }

    /// Returns the number of items read so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn next(&mut self) -> Result<Option<StoredItem>> {
        let Some(item) = self.runtime.block_on(self.stream.try_next())? else {
            return Ok(None);
        };
        self.count += 1;
        self.progress
            .show("exporting", self.count, Some(self.info.items));
        if item.vector.len() == self.dim() {
            return Ok(Some(item));
        }
        Err(Error::internal(format!(
            "the item {:?} is damaged: its vector is incomplete; run `gallery check`",
            item.item.id.as_str()
        )))
    }
}
