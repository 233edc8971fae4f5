//! `dinoserve gallery audit`.

use std::process::ExitCode;

use clap::Args;

use super::selection::OneGallery;
use crate::{
    cli::{
        audit::{AuditFlags, OutputFlags},
        executor::block_on,
        progress::show_progress,
    },
    error::Error,
    gallery::{ItemId, OpenMode, Parts},
    service::AuditSet,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Audit {
    #[command(flatten)]
    output: OutputFlags,

    #[command(flatten)]
    gallery: OneGallery,

    #[command(flatten)]
    audit: AuditFlags,
}

impl Audit {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        self.output.check()?;
        self.audit.check()?;
        block_on(async {
            let store = self.gallery.open(OpenMode::Read).await?;
            let name = &self.gallery.name;
            let set = AuditSet::of_gallery(&store, name, None, &show_progress()).await?;
            let set = set.ok_or_else(|| Error::internal("the audit was stopped"))?;
            let report = self.audit.audit(&set)?;
            let title = format!("gallery {name}");
            let parts = Parts {
                thumbnail: true,
                ..Parts::NONE
            };
            self.output
                .write(&title, &report, async |id| {
                    let id = ItemId::new(id)?;
                    let stored = store.get(name, &id, parts).await?;
                    let thumbnail = stored.and_then(|stored| stored.thumbnail);
                    Ok(thumbnail.map(|thumbnail| thumbnail.to_vec()))
                })
                .await?;
            store.close().await;
            Ok(ExitCode::SUCCESS)
        })
    }
}
