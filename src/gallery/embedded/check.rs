//! Verifies a gallery on disk.

use super::{
    codec::{self, ItemRecord},
    environment::Environment,
    view::View,
};
use crate::{
    error::Result,
    gallery::{CheckReport, GalleryName},
};

/// Maximum number of findings that a check lists; it only counts further ones.
const MAX_FINDINGS: usize = 1000;

/// Compares everything of a gallery with its checksums, and the tables with each other.
pub(super) fn check(environment: &Environment, name: &GalleryName) -> Result<CheckReport> {
    let txn = environment.read()?;
    let view = View::new(environment, &txn);
    let row = view.require_gallery(name)?;
    let tables = view.tables();
    let mut items = 0;
    let mut findings = Findings::default();
    for entry in view.records(row.number, 0)? {
        let (place, bytes) = entry?;
        items += 1;
        let id = match ItemRecord::decode(bytes) {
            Ok(record) if record.item.place == place => record.item.id,
            _ => {
                findings.add(format!("item {place}: its record cannot be read"));
                continue;
            }
        };
        if !ItemRecord::is_whole(bytes, view.encoded_parts(row.number, place)?) {
            findings.add(format!(
                "item {:?}: its checksum differs from its content",
                id.as_str()
            ));
        }
        if view.place(row.number, &id)? != Some(place) {
            findings.add(format!(
                "item {:?}: it cannot be found by its id",
                id.as_str()
            ));
        }
    }
    let prefix = codec::prefix(row.number);
    let ids = view.entries(tables.ids, &prefix)?.count() as u64;
    if ids != items || row.items != items {
        findings.add(format!(
            "there are {items} items and {ids} ids, but the gallery counts {}",
            row.items
        ));
    }
    for (part, table) in [
        ("vectors", tables.vectors),
        ("features", tables.features),
        ("thumbnails", tables.thumbnails),
    ] {
        for entry in view.entries(table, &prefix)? {
            let (key, _) = entry?;
            if view.get(tables.records, key)?.is_none() {
                findings.add(format!("the {part} have an entry that belongs to no item"));
            }
        }
    }
    Ok(CheckReport {
        items,
        damage: findings.into_list(),
    })
}

#[derive(Default)]
struct Findings {
    listed: Vec<String>,
    more: u64,
}

impl Findings {
    fn add(&mut self, finding: String) {
        if self.listed.len() < MAX_FINDINGS {
            self.listed.push(finding);
        } else {
            self.more += 1;
        }
    }

    fn into_list(mut self) -> Vec<String> {
        if self.more > 0 {
            self.listed.push(format!("and {} more", self.more));
        }
        self.listed
    }
}
