//! `dinoserve gallery check`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::selection::SomeGalleries;
use crate::{
    cli::{
        executor::block_on,
        output::{exit_code, print_json},
    },
    names::plural,
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
                let (name, count, damage) = (gallery.name, report.items, report.damage);
                let items = plural(count, "item");
                intact &= damage.is_empty();
                if self.galleries.json {
                    reports.push(json!({"name": name, "items": count, "damage": damage}));
                } else if damage.is_empty() {
                    writeln!(out, "{name}: {items}, all as written")?;
                } else {
                    writeln!(out, "{name}: {items}, {} DAMAGED:", damage.len())?;
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
