//! `dinoserve gallery stats`.

use std::{collections::BTreeMap, io::Write, path::Path, process::ExitCode};

use clap::Args;
use futures_util::TryStreamExt;
use serde::Serialize;

use super::{SomeGalleries, block_on};
use crate::{
    error::Result,
    gallery::{Binding, Gallery, GalleryInfo, GalleryName, Label, Parts},
    vision::Preprocessing,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Stats {
    #[command(flatten)]
    which: SomeGalleries,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// Where the galleries are.
    location: String,
    /// What the folder takes on the disk; `null` for a database.
    bytes: Option<u64>,
    galleries: Vec<OneReport>,
}

#[derive(Serialize)]
struct OneReport {
    name: GalleryName,
    items: u64,
    /// Items in the approximate index.
    indexed: u64,
    binding: Binding,
    /// Items of each label.
    labels: BTreeMap<String, u64>,
    unlabelled: u64,
}

/// Labels that are shown to people; the most frequent.
const SHOWN: usize = 20;

impl Stats {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let report = block_on(async {
            let (store, infos) = self.which.open().await?;
            let mut galleries = Vec::with_capacity(infos.len());
            for info in infos {
                galleries.push(count(&store, info).await?);
            }
            let folder = self
                .which
                .place
                .flags
                .location
                .as_deref()
                .map(Path::new)
                .filter(|folder| folder.is_dir());
            let bytes = folder.map(bytes_of).transpose()?;
            Ok(Report {
                location: store.describe(),
                bytes,
                galleries,
            })
        })?;
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report)?;
            writeln!(out)?;
        } else {
            report.print(&mut out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn count(store: &Gallery, info: GalleryInfo) -> Result<OneReport> {
    let (mut labels, mut unlabelled) = (BTreeMap::<Label, u64>::new(), 0);
    let mut items = store.read(&info.name, Parts::NONE).await?;
    while let Some(stored) = items.try_next().await? {
        match stored.item.label {
            Some(label) => *labels.entry(label).or_default() += 1,
            None => unlabelled += 1,
        }
    }
    // Counted in the same reading, so that the numbers add up while others write.
    let items = labels.values().sum::<u64>() + unlabelled;
    let labels = labels
        .into_iter()
        .map(|(label, count)| (label.into(), count))
        .collect();
    let GalleryInfo {
        name,
        binding,
        indexed,
        ..
    } = info;
    Ok(OneReport {
        name,
        items,
        indexed,
        binding,
        labels,
        unlabelled,
    })
}

/// What the files of a folder take on the disk; a database file may have holes.
fn bytes_of(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let metadata = entry?.metadata()?;
        #[cfg(unix)]
        let of_file = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        #[cfg(not(unix))]
        let of_file = metadata.len();
        bytes += of_file;
    }
    Ok(bytes)
}

impl Report {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let bytes = self
            .bytes
            .map(|bytes| format!(", {} on the disk", indicatif::BinaryBytes(bytes)));
        writeln!(out, "{}{}", self.location, bytes.unwrap_or_default())?;
        for gallery in &self.galleries {
            let OneReport {
                name,
                items,
                indexed,
                binding,
                labels,
                unlabelled,
            } = gallery;
            let Binding {
                model,
                dim,
                pooling,
                layers,
                preprocessing,
            } = binding;
            let Preprocessing {
                size,
                resize,
                filter,
                exif,
                background,
            } = preprocessing;
            writeln!(
                out,
                "\n{name}: {items} items, {indexed} of them in the index"
            )?;
            writeln!(
                out,
                "  {dim} values of {} (fingerprint {})",
                model.name,
                model.fingerprint.short()
            )?;
            writeln!(
                out,
                "  pooling={pooling} layers={layers} size={size} resize={resize} filter={filter} \
                 exif={exif} background={background}"
            )?;
            let mut by_count: Vec<_> = labels.iter().collect();
            by_count.sort_by_key(|&(label, &count)| (std::cmp::Reverse(count), label));
            for (label, count) in by_count.iter().take(SHOWN) {
                writeln!(out, "  {count:>8}  {label}")?;
            }
            if by_count.len() > SHOWN {
                let count: u64 = by_count[SHOWN..].iter().map(|&(_, &count)| count).sum();
                writeln!(
                    out,
                    "  {count:>8}  of {} other labels (--json lists them)",
                    by_count.len() - SHOWN
                )?;
            }
            if *unlabelled > 0 {
                writeln!(out, "  {unlabelled:>8}  without a label")?;
            }
        }
        Ok(())
    }
}
