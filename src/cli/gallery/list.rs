//! `dinoserve gallery list`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::selection::SomeGalleries;
use crate::{
    cli::{executor::block_on, output::print_json},
    gallery::{Binding, GalleryInfo, GalleryName, VectorFormat},
    names::plural,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    galleries: SomeGalleries,
}

/// A gallery, as `gallery stats` describes it, without what takes a look at all items.
#[derive(Serialize)]
struct Listed {
    name: GalleryName,
    items: u64,
    indexed: u64,
    vectors: VectorFormat,
    binding: Binding,
}

impl From<GalleryInfo> for Listed {
    fn from(info: GalleryInfo) -> Self {
        Self {
            name: info.name,
            items: info.items,
            indexed: info.indexed,
            vectors: info.vectors,
            binding: info.binding,
        }
    }
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (_, found) = block_on(self.galleries.open())?;
        let found: Vec<Listed> = found.into_iter().map(Listed::from).collect();
        if self.galleries.json {
            print_json(&found)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = std::io::stdout().lock();
        let widest = found
            .iter()
            .map(|gallery| gallery.name.as_str().len())
            .max();
        for gallery in &found {
            writeln!(
                out,
                "{:width$}  {}, {}",
                gallery.name.as_str(),
                plural(gallery.items, "item"),
                gallery.binding.model.name,
                width = widest.unwrap_or(0)
            )?;
        }
        if found.is_empty() {
            writeln!(out, "no galleries")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
