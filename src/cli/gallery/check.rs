//! `dinoserve gallery check`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::selection::SomeGalleries;
use crate::cli::{
    executor::block_on,
    output::{exit_code, print_json},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    galleries: SomeGalleries,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        block_on(async {
            let (store, galleries) = self.galleries.open().await?;
            let mut out = std::io::stdout();
            let mut intact = true;
            let mut reports = Vec::new();
            for gallery in galleries {
                let report = store.check(&gallery.name).await?;
                let (name, items, damage) = (gallery.name, report.items, report.damage);
                intact &= damage.is_empty();
                if self.galleries.json {
                    reports.push(json!({"name": name, "items": items, "damage": damage}));
                } else if damage.is_empty() {
                    writeln!(out, "{name}: {items} items, all as they were written")?;
                } else {
                    writeln!(out, "{name}: {items} items, {} DAMAGED:", damage.len())?;
                    damage
                        .iter()
                        .try_for_each(|damage| writeln!(out, "  {damage}"))?;
                }
            }
            if self.galleries.json {
                print_json(&reports)?;
            }
            Ok(exit_code(intact))
        })
    }
}
