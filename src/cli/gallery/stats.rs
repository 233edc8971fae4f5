//! `dinoserve gallery stats`.

use std::{collections::BTreeMap, io::Write, path::Path, process::ExitCode};

use clap::Args;
use futures_util::TryStreamExt;
use serde::Serialize;

use super::selection::SomeGalleries;
use crate::{
    cli::{executor::block_on, output::print_json, pace::short_bytes},
    error::Result,
    gallery::{Binding, Gallery, GalleryInfo, GalleryName, Label, Parts, VectorFormat},
    names::plural,
};

/// Maximum number of labels that are printed without `--json`, most frequent first.
const MAX_PRINTED_LABELS: usize = 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Stats {
    #[command(flatten)]
    galleries: SomeGalleries,
}

#[derive(Serialize)]
struct StoreStats {
    location: String,
    /// Disk space of the folder, in bytes; `null` for a database.
    bytes: Option<u64>,
    galleries: Vec<GalleryStats>,
}

#[derive(Serialize)]
struct GalleryStats {
    name: GalleryName,
    items: u64,
    /// Number of items in the approximate index.
    indexed: u64,
    /// Precision of the vectors in memory, or in the index of a database.
    vectors: VectorFormat,
    binding: Binding,
    /// Number of items of each label.
    labels: BTreeMap<Label, u64>,
    #[serde(rename = "unlabelled")]
    unlabeled: u64,
}

impl Stats {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let stats = block_on(async {
            let (store, infos) = self.galleries.open().await?;
            let mut galleries = Vec::with_capacity(infos.len());
            for info in infos {
                galleries.push(count(&store, info).await?);
            }
            let location = self.galleries.store.location.as_deref();
            let folder = location.map(Path::new).filter(|folder| folder.is_dir());
            Ok(StoreStats {
                location: store.describe(),
                bytes: folder.map(disk_bytes).transpose()?,
                galleries,
            })
        })?;
        if self.galleries.json {
            print_json(&stats)?;
        } else {
            stats.print(&mut std::io::stdout().lock())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn count(store: &Gallery, info: GalleryInfo) -> Result<GalleryStats> {
    let mut labels = BTreeMap::<Label, u64>::new();
    let mut unlabeled = 0;
    let mut items = store.read(&info.name, Parts::NONE).await?;
    while let Some(stored) = items.try_next().await? {
        match stored.item.label {
            Some(label) => *labels.entry(label).or_default() += 1,
            None => unlabeled += 1,
        }
    }
    Ok(GalleryStats {
        // Counted in the same pass, so that the numbers add up during concurrent writes.
        items: labels.values().sum::<u64>() + unlabeled,
        name: info.name,
        indexed: info.indexed,
        vectors: info.vectors,
        binding: info.binding,
        labels,
        unlabeled,
    })
}

/// Returns the disk space of a folder's files; a database file may be sparse.
fn disk_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let metadata = entry?.metadata()?;
        #[cfg(unix)]
        let file_bytes = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        #[cfg(not(unix))]
        let file_bytes = metadata.len();
        bytes += file_bytes;
    }
    Ok(bytes)
}

impl StoreStats {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        write!(out, "{}", self.location)?;
        if let Some(bytes) = self.bytes {
            write!(out, ", {} on disk", short_bytes(bytes as f64))?;
        }
        writeln!(out)?;
        let mut galleries = self.galleries.iter();
        galleries.try_for_each(|gallery| gallery.print(out))
    }
}

impl GalleryStats {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let binding = &self.binding;
        writeln!(
            out,
            "\n{}: {}, {} of them in the index",
            self.name,
            plural(self.items, "item"),
            self.indexed
        )?;
        let fingerprint = binding.model.fingerprint.short();
        writeln!(
            out,
            "  {} values of {} (fingerprint {fingerprint}), vectors as {}",
            binding.dim, binding.model.name, self.vectors
        )?;
        let images = &binding.preprocessing;
        writeln!(
            out,
            "  pooling={} layers={} size={} resize={} filter={} exif={} background={} levels={}",
            binding.pooling,
            binding.layers,
            images.size,
            images.resize,
            images.filter,
            images.exif,
            images.background,
            images.levels
        )?;
        self.print_labels(out)
    }

    fn print_labels(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut by_count: Vec<_> = self.labels.iter().collect();
        by_count.sort_by_key(|&(label, &count)| (std::cmp::Reverse(count), label));
        let (printed, others) = by_count.split_at(by_count.len().min(MAX_PRINTED_LABELS));
        for (label, count) in printed {
            writeln!(out, "  {count:>8}  {label}")?;
        }
        if !others.is_empty() {
            let count: u64 = others.iter().map(|&(_, &count)| count).sum();
            let labels = others.len();
            writeln!(
                out,
                "  {count:>8}  of {} (--json lists them)",
                plural(labels, "other label")
            )?;
        }
        if self.unlabeled > 0 {
            writeln!(out, "  {:>8}  without a label", self.unlabeled)?;
        }
        Ok(())
    }
}
