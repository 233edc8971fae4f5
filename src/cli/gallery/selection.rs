//! The store and the galleries that a command works on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

use crate::{
    cli::flags::GalleryFlags,
    gallery::{self, Gallery, GalleryInfo, GalleryName, OpenMode, VectorFormat},
};

const NO_LOCATION: &str = "the location of the galleries is missing; give --gallery DIR or \
                           --gallery postgres://…, or set DINOSERVE_GALLERY";

/// The gallery that a command works on.
#[derive(Debug, Args)]
pub(super) struct OneGallery {
    /// Name of the gallery
    #[arg(long, default_value_t)]
    pub(super) name: GalleryName,

    #[command(flatten)]
    store: GalleryFlags,
}

impl OneGallery {
    pub(super) async fn open(&self, mode: OpenMode) -> anyhow::Result<Gallery> {
        open_store(&self.store, mode).await
    }

    /// Sets the precision of the vectors, and returns the one before.
    pub(super) async fn set_vectors(&self, vectors: VectorFormat) -> anyhow::Result<VectorFormat> {
        let (location, config) = (self.store.location.as_deref(), self.store.config());
        let location = location.context(NO_LOCATION)?;
        Ok(gallery::set_vectors(location, &config, &self.name, vectors).await?)
    }

    /// Notes what [`OneGallery::open`] will create.
    pub(super) fn new_folders(&self) -> NewFolders {
        let folder = self.store.missing_folder();
        let missing = folder.iter().flat_map(|folder| folder.ancestors());
        let missing = missing.filter(|path| !path.as_os_str().is_empty());
        NewFolders(
            missing
                .take_while(|path| !path.exists())
                .map(Path::to_owned)
                .collect(),
        )
    }
}

/// The folders that did not exist before the galleries were opened, the innermost first.
pub(super) struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Removes the folders again. Belongs after the store of galleries, which is empty, was closed.
    pub(super) fn remove(self) {
        let mut folders = self.0.iter();
        let removed = folders.next().map_or(Ok(()), fs::remove_dir_all);
        // Stops at a folder that has got other files.
        let removed = removed.and_then(|()| folders.try_for_each(fs::remove_dir));
        if let Err(error) = removed {
            tracing::debug!(%error, "a new folder is left");
        }
    }
}

/// The galleries that a command prints about.
#[derive(Debug, Args)]
pub(super) struct SomeGalleries {
    /// Name of a gallery [default: all of them]
    #[arg(long)]
    name: Option<GalleryName>,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) store: GalleryFlags,
}

impl SomeGalleries {
    /// Opens the store for reading and looks up the galleries.
    pub(super) async fn open(&self) -> anyhow::Result<(Gallery, Vec<GalleryInfo>)> {
        let store = open_store(&self.store, OpenMode::Read).await?;
        let galleries = match &self.name {
            Some(name) => vec![store.require_gallery(name).await?],
            None => store.galleries().await?,
        };
        Ok((store, galleries))
    }
}

pub(super) async fn open_store(flags: &GalleryFlags, mode: OpenMode) -> anyhow::Result<Gallery> {
    flags.open(mode).await?.context(NO_LOCATION)
}
