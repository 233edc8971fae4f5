//! Images that a PCA basis is fitted on.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    gallery::{Gallery, GalleryName, ItemStream, Parts, StoredItem},
};

/// Images that a basis is fitted on.
#[derive(Debug)]
pub enum BasisImages {
    /// Image files.
    Files(Vec<Bytes>),
    /// Thumbnails of a sample of a gallery's items, the same sample each time. Thumbnails are
    /// small, so the basis is an approximation.
    Gallery {
        /// Name of the gallery.
        name: GalleryName,
        /// Number of items.
        sample: usize,
    },
}

impl BasisImages {
    /// Returns the image files.
    pub(super) async fn into_files(self, store: &Gallery) -> Result<Vec<Bytes>> {
        match self {
            Self::Files(files) => Ok(files),
            Self::Gallery { name, sample } => thumbnails(store, &name, sample).await,
        }
    }
}

/// Returns thumbnails of `sample` items of a gallery: those whose ids have the least hashes, which
/// are an even sample and the same each time. Items stored as vectors have no thumbnail.
async fn thumbnails(store: &Gallery, gallery: &GalleryName, sample: usize) -> Result<Vec<Bytes>> {
    let parts = Parts {
        thumbnail: true,
        ..Parts::NONE
    };
    let items = store.read(gallery, Parts::NONE).await?;
    let chosen = least_hashes(items, sample, |item| Some(item.item.id)).await?;
    let mut thumbnails = Vec::new();
    for id in &chosen {
        // An item can be deleted after its id was read.
        if let Some(stored) = store.get(gallery, id, parts).await? {
            thumbnails.extend(stored.thumbnail);
        }
    }
    if thumbnails.len() < chosen.len() {
        // Some have none. Reading all thumbnails takes longer, so it is done only now.
        let items = store.read(gallery, parts).await?;
        thumbnails = least_hashes(items, sample, |item| item.thumbnail).await?;
    }
    if thumbnails.is_empty() {
        let detail = format_args!("`{gallery}` has no items with images to fit a basis on");
        return Err(Error::option("gallery", detail));
    }
    Ok(thumbnails)
}

/// Selects the `count` items whose ids have the least hashes, among those for which `part` returns
/// a value. Returns these values.
async fn least_hashes<T>(
    mut items: ItemStream,
    count: usize,
    part: impl Fn(StoredItem) -> Option<T>,
) -> Result<Vec<T>> {
    let mut chosen: BTreeMap<[u8; 32], T> = BTreeMap::new();
    while let Some(stored) = items.try_next().await? {
        let hash = Sha256::digest(stored.item.id.as_str()).into();
        if let Some(value) = part(stored) {
            chosen.insert(hash, value);
            if chosen.len() > count {
                chosen.pop_last();
            }
        }
    }
    Ok(chosen.into_values().collect())
}
