//! `dinoserve gallery snapshot FILE` and `dinoserve gallery restore FILE`.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio_util::io::{InspectReader, InspectWriter};
use ureq::SendBody;

use super::{
    selection::OneGallery,
    server::{Server, ServerFlags},
};
use crate::{
    artifacts::write_atomically,
    cli::{
        executor::{async_runtime, block_on},
        pace::short_bytes,
        progress::Progress,
    },
    error::{Error, Kind, Result},
    gallery::{
        GalleryName, OpenMode, SnapshotSummary, restore_snapshot, verify_snapshot, write_snapshot,
    },
    names::plural,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Snapshot {
    /// File to write
    file: PathBuf,

    #[command(flatten)]
    source: SnapshotFlags,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    /// File that `gallery snapshot` wrote
    file: PathBuf,

    /// Delete the items that the gallery has; without this flag a gallery with items is an error
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    target: SnapshotFlags,
}

/// The gallery, and the server that has it.
#[derive(Debug, Args)]
struct SnapshotFlags {
    #[command(flatten)]
    server: ServerFlags,

    #[command(flatten)]
    gallery: OneGallery,
}

impl Snapshot {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = async_runtime()?;
        let flags = &self.source;
        let name = &flags.gallery.name;
        let mut summary = SnapshotSummary::default();
        if let Some(server) = flags.server.server(None) {
            let mut body = server.get(&snapshot_path(name))??.into_body();
            write_atomically(&self.file, |file| {
                let mut body = ProgressReader {
                    inner: body.as_reader(),
                    show: Progress::of_bytes("receiving", None),
                };
                std::io::copy(&mut body, file)
                    .and_then(|_| file.rewind())
                    .map_err(|error| Error::writing(&self.file, error))?;
                // The server may have ended before the snapshot did.
                summary = runtime.block_on(verify_snapshot(reader(file, "checking")?))?;
                Ok(())
            })?;
        } else {
            let store = runtime.block_on(flags.gallery.open(OpenMode::Read))?;
            write_atomically(&self.file, |file| {
                let show = Progress::of_bytes("writing", None);
                let writer = InspectWriter::new(async_file(file)?, show);
                summary = runtime.block_on(write_snapshot(&store, name, writer))?;
                Ok(())
            })?;
        }
        let outcome = format!("of `{name}` written to {}", self.file.display());
        report(&summary, &outcome)
    }
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let flags = &self.target;
        let name = &flags.gallery.name;
        let mut file = File::open(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let (replaced, summary) = if let Some(server) = flags.server.server(None) {
            let replaced = self.check_replaced(items_of_server(&server, name)?)?;
            let verified =
                block_on(async { Ok(verify_snapshot(reader(&file, "checking")?).await?) });
            let verified = verified.with_context(|| self.file.display().to_string())?;
            file.rewind()?;
            let body = ProgressReader {
                inner: file,
                show: Progress::of_bytes("sending", Some(verified.bytes)),
            };
            let body = SendBody::from_owned_reader(body);
            let path = snapshot_path(name);
            let mut response = server.put(&path, "application/octet-stream", body)??;
            let answer = response.body_mut().read_to_string()?;
            (replaced, serde_json::from_str(&answer)?)
        } else {
            block_on(self.restore_here(&file))?
        };
        let replacing = match replaced {
            0 => String::new(),
            items => format!(" in place of {}", plural(items, "item")),
        };
        let outcome = format!(
            "restored into `{name}` from {}{replacing}",
            self.file.display()
        );
        report(&summary, &outcome)
    }

    /// Rejects a gallery with items, unless they are to be replaced; returns their number.
    fn check_replaced(&self, items: u64) -> anyhow::Result<u64> {
        if items > 0 && !self.replace {
            bail!(
                "the gallery `{}` has {}, which a restore deletes; give --replace to delete them, \
                 or another --name",
                self.target.gallery.name,
                plural(items, "item")
            );
        }
        Ok(items)
    }

    /// Returns the number of items that were replaced, and what was restored.
    async fn restore_here(&self, file: &File) -> anyhow::Result<(u64, SnapshotSummary)> {
        let gallery = &self.target.gallery;
        let new_folders = gallery.new_folders();
        let store = match gallery.open(OpenMode::Serve).await {
            Err(error) if error.downcast_ref().map(Error::kind) == Some(Kind::Unavailable) => {
                return Err(error.context(
                    "the galleries cannot be opened; through a running server: \
                     --server http://HOST:PORT",
                ));
            }
            opened => opened?,
        };
        let restored = async {
            let present = store.gallery(&gallery.name).await?;
            let replaced = self.check_replaced(present.map_or(0, |gallery| gallery.items))?;
            let restored =
                restore_snapshot(&store, &gallery.name, reader(file, "restoring")?).await;
            let summary = restored.with_context(|| self.file.display().to_string())?;
            anyhow::Ok((replaced, summary))
        }
        .await;
        store.close().await;
        drop(store);
        if restored.is_err() {
            new_folders.remove();
        }
        restored
    }
}

fn report(summary: &SnapshotSummary, outcome: &str) -> anyhow::Result<ExitCode> {
    let size = short_bytes(summary.bytes as f64);
    let items = plural(summary.items, "item");
    writeln!(std::io::stdout(), "{items} ({size}) {outcome}")?;
    Ok(ExitCode::SUCCESS)
}

/// Asks a server for the number of items of a gallery; 0 if there is none.
fn items_of_server(server: &Server, name: &GalleryName) -> anyhow::Result<u64> {
    let answer = server.get("/v1/galleries")??.body_mut().read_to_string()?;
    let answer: Value = serde_json::from_str(&answer)?;
    let galleries = answer["data"].as_array();
    let found = galleries.and_then(|galleries| {
        let mut galleries = galleries.iter();
        galleries.find(|gallery| gallery["name"] == name.as_str())
    });
    Ok(found
        .and_then(|gallery| gallery["items"].as_u64())
        .unwrap_or(0))
}

/// Duplicates the handle of an open file for asynchronous use.
fn async_file(file: &File) -> Result<tokio::fs::File> {
    file.try_clone()
        .map(tokio::fs::File::from_std)
        .map_err(|error| Error::io("opening the file again", error))
}

/// Reads the rest of an open file, and shows the progress of `step`.
fn reader(file: &File, step: &'static str) -> Result<impl AsyncRead + Unpin + Send> {
    let total = file.metadata().ok().map(|metadata| metadata.len());
    let show = Progress::of_bytes(step, total);
    Ok(InspectReader::new(async_file(file)?, show))
}

/// A reader that passes what it reads to `show`.
struct ProgressReader<R, F> {
    inner: R,
    show: F,
}

impl<R: Read, F: FnMut(&[u8])> Read for ProgressReader<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.show)(&buffer[..count]);
        Ok(count)
    }
}

fn snapshot_path(name: &GalleryName) -> String {
    format!("/v1/galleries/{name}/snapshot")
}
