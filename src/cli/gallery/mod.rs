//! `dinoserve gallery import|export|check|stats|snapshot|restore`.

mod check;
mod export;
mod import;
#[cfg(feature = "parquet")]
mod parquet;
mod pictures;
mod snapshot;
mod stats;

use std::{future::Future, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::common::GalleryFlags;
use crate::gallery::{self, GalleryInfo, GalleryName, OpenMode};

#[derive(Debug, Subcommand)]
pub(super) enum Gallery {
    /// Store the images of a folder or of a list; what is stored already is skipped
    Import(Box<import::Import>),
    /// Write all items and their vectors into files
    Export(export::Export),
    /// Compare everything that is stored with its checksums
    Check(check::Check),
    /// Say what the galleries hold
    Stats(stats::Stats),
    /// Save a gallery into one file that checks itself, also while it is being written to
    Snapshot(snapshot::Snapshot),
    /// Give a gallery the content of such a file, all of it or nothing
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
struct Place {
    #[command(flatten)]
    flags: GalleryFlags,
}

impl Place {
    async fn open(&self, mode: OpenMode) -> anyhow::Result<gallery::Gallery> {
        let store = self.flags.open(mode).await?;
        store.context("where are the galleries? give --gallery DIR or --gallery postgres://…, or set DINOSERVE_GALLERY")
    }
}

/// The gallery that a command works on.
#[derive(Debug, Args)]
struct OneGallery {
    #[command(flatten)]
    place: Place,

    /// Name of the gallery
    #[arg(long, default_value_t)]
    name: GalleryName,
}

/// The galleries that a command works on.
#[derive(Debug, Args)]
struct SomeGalleries {
    #[command(flatten)]
    place: Place,

    /// Name of a gallery [default: all of them]
    #[arg(long)]
    name: Option<GalleryName>,
}

impl SomeGalleries {
    /// The store, and what is known of the galleries.
    async fn open(&self) -> anyhow::Result<(gallery::Gallery, Vec<GalleryInfo>)> {
        let store = self.place.open(OpenMode::Read).await?;
        let galleries = match &self.name {
            Some(name) => vec![store.gallery(name).await?],
            None => store.galleries().await?,
        };
        Ok((store, galleries))
    }
}

/// Runs what is asynchronous.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
