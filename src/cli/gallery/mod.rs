//! `dinoserve gallery import|export|check|stats|snapshot|restore`.

mod check;
mod export;
mod image_list;
mod import;
mod items;
#[cfg(feature = "parquet")]
mod parquet;
mod snapshot;
mod stats;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::flags::GalleryFlags;
use crate::gallery::{self, GalleryInfo, GalleryName, OpenMode};

#[derive(Debug, Subcommand)]
pub(super) enum Gallery {
    /// Store the images of a folder or of a list; items that are stored already are skipped
    Import(Box<import::Import>),
    /// Write all items and their vectors to files
    Export(export::Export),
    /// Compare everything that is stored with its checksums
    Check(check::Check),
    /// Print the contents of the galleries: items, labels, model, size
    Stats(stats::Stats),
    /// Save a gallery to one file with checksums, also while the gallery is written to
    Snapshot(snapshot::Snapshot),
    /// Replace the content of a gallery by that of a snapshot, all of it or nothing
    Restore(snapshot::Restore),
}

impl Gallery {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Import(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Check(command) => command.run(),
            Self::Stats(command) => command.run(),
            Self::Snapshot(command) => command.run(),
            Self::Restore(command) => command.run(),
        }
    }
}

/// The store that a command works on.
#[derive(Debug, Args)]
struct StoreLocation {
    #[command(flatten)]
    flags: GalleryFlags,
}

impl StoreLocation {
    async fn open(&self, mode: OpenMode) -> anyhow::Result<gallery::Gallery> {
        let store = self.flags.open(mode).await?;
        store.context(
            "the location of the galleries is missing; give --gallery DIR or \
             --gallery postgres://…, or set DINOSERVE_GALLERY",
        )
    }
}

/// The gallery that a command works on.
#[derive(Debug, Args)]
struct OneGallery {
    #[command(flatten)]
    store: StoreLocation,

    /// Name of the gallery
    #[arg(long, default_value_t)]
    name: GalleryName,
}

/// The galleries that a command works on.
#[derive(Debug, Args)]
struct SomeGalleries {
    #[command(flatten)]
    store: StoreLocation,

    /// Name of a gallery [default: all of them]
    #[arg(long)]
    name: Option<GalleryName>,
}

impl SomeGalleries {
    /// Opens the store for reading and looks up the galleries.
    async fn open(&self) -> anyhow::Result<(gallery::Gallery, Vec<GalleryInfo>)> {
        let store = self.store.open(OpenMode::Read).await?;
        let galleries = match &self.name {
            Some(name) => vec![store.require_gallery(name).await?],
            None => store.galleries().await?,
        };
        Ok((store, galleries))
    }
}
