//! `dinoserve gallery rename --to NAME`.

use std::{io::Write, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::selection::OneGallery;
use crate::{
    cli::executor::block_on,
    gallery::{GalleryName, OpenMode},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Rename {
    /// New name of the gallery, which no other one has
    #[arg(long, value_name = "NAME")]
    to: GalleryName,

    #[command(flatten)]
    gallery: OneGallery,
}

impl Rename {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (from, to) = (&self.gallery.name, &self.to);
        block_on(async {
            let store = self.gallery.open(OpenMode::Serve).await?;
            store.require_gallery(from).await?;
            if store.gallery(to).await?.is_some() {
                bail!("there is a gallery `{to}` already; give another name, or delete it first");
            }
            store.rename(from, to).await?;
            store.close().await;
            Ok(())
        })?;
        writeln!(std::io::stdout(), "{from} is {to} now")?;
        Ok(ExitCode::SUCCESS)
    }
}
