//! `dinoserve gallery check`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{SomeGalleries, block_on};

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    which: SomeGalleries,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        block_on(async {
            let (store, galleries) = self.which.open().await?;
            let mut out = std::io::stdout();
            let mut whole = true;
            let mut reports = Vec::new();
            for gallery in galleries {
                let report = store.check(&gallery.name).await?;
                whole &= report.damage.is_empty();
                if self.json {
                    reports.push(json!({"name": gallery.name, "items": report.items, "damage": report.damage}));
                } else if report.damage.is_empty() {
                    writeln!(
                        out,
                        "{}: {} items, all as they were written",
                        gallery.name, report.items
                    )?;
                } else {
                    writeln!(
                        out,
                        "{}: {} items, {} DAMAGED:",
                        gallery.name,
                        report.items,
                        report.damage.len()
                    )?;
                    report
                        .damage
                        .iter()
                        .try_for_each(|damage| writeln!(out, "  {damage}"))?;
                }
            }
            if self.json {
                writeln!(out, "{}", serde_json::to_string_pretty(&reports)?)?;
            }
            Ok(if whole {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        })
    }
}
