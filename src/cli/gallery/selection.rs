//! The store and the galleries that a command works on.

use anyhow::Context;
use clap::Args;

use crate::{
    cli::flags::GalleryFlags,
    gallery::{Gallery, GalleryInfo, GalleryName, OpenMode},
};

/// The store that a command works on.
#[derive(Debug, Args)]
pub(super) struct StoreLocation {
    #[command(flatten)]
    pub(super) flags: GalleryFlags,
}

impl StoreLocation {
    pub(super) async fn open(&self, mode: OpenMode) -> anyhow::Result<Gallery> {
        let store = self.flags.open(mode).await?;
        store.context(
            "the location of the galleries is missing; give --gallery DIR or \
             --gallery postgres://…, or set DINOSERVE_GALLERY",
        )
    }
}

/// The gallery that a command works on.
#[derive(Debug, Args)]
pub(super) struct OneGallery {
    #[command(flatten)]
    pub(super) store: StoreLocation,

    /// Name of the gallery
    #[arg(long, default_value_t)]
    pub(super) name: GalleryName,
}

/// The galleries that a command works on.
#[derive(Debug, Args)]
pub(super) struct SomeGalleries {
    #[command(flatten)]
    pub(super) store: StoreLocation,

    /// Name of a gallery [default: all of them]
    #[arg(long)]
    name: Option<GalleryName>,
}

impl SomeGalleries {
    /// Opens the store for reading and looks up the galleries.
    pub(super) async fn open(&self) -> anyhow::Result<(Gallery, Vec<GalleryInfo>)> {
        let store = self.store.open(OpenMode::Read).await?;
        let galleries = match &self.name {
            Some(name) => vec![store.require_gallery(name).await?],
            None => store.galleries().await?,
        };
        Ok((store, galleries))
    }
}
