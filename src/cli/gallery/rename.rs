//! `dinoserve gallery rename --to NAME`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    selection::OneGallery,
    server::{REQUEST_TIME, ServerFlags},
};
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
    server: ServerFlags,

    #[command(flatten)]
    gallery: OneGallery,
}

impl Rename {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (from, to) = (&self.gallery.name, &self.to);
        if let Some(server) = self.server.server(Some(REQUEST_TIME)) {
            let change = json!({"to": to.as_str()});
            server.patch(&format!("/v1/galleries/{from}"), &change)??;
        } else {
            block_on(self.rename_here())?;
        }
        writeln!(std::io::stdout(), "{from} is {to} now")?;
        Ok(ExitCode::SUCCESS)
    }

    async fn rename_here(&self) -> anyhow::Result<()> {
        let store = self.gallery.open(OpenMode::Serve).await?;
        let renamed = store.rename(&self.gallery.name, &self.to).await;
        store.close().await;
        Ok(renamed?)
    }
}
