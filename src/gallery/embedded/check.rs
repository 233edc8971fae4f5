//! Verifies what is stored of a gallery.

use super::{
    codec::{self, ItemRecord},
    environment::Environment,
    reader,
};
use crate::{
    error::Result,
    gallery::{CheckReport, GalleryName},
};

/// Maximum number of findings that a check lists; it only counts further ones.
const MAX_FINDINGS: usize = 1000;

/// Compares everything of a gallery with its checksums, and the tables with each other.
pub(super) fn check(environment: &Environment, name: &GalleryName) -> Result<CheckReport> {
    let failed = |error| environment.failed(error);
    let txn = environment.read()?;
    let row = reader::require_gallery(environment, &txn, name)?;
    let tables = &environment.tables;
    let mut items = 0;
    let mut findings = Findings::default();
    for entry in reader::records(environment, &txn, row.number, 0)? {
        let (place, bytes) = entry?;
        items += 1;
        let key = codec::place_key(row.number, place);
        let parts = reader::encoded_parts(environment, &txn, &key)?;
        let id = match ItemRecord::decode(bytes) {
            Ok(record) if record.item.place == place => record.item.id,
            _ => {
                findings.add(format!("item {place}: its record cannot be read"));
                continue;
            }
        };
        if !ItemRecord::is_whole(bytes, parts) {
            findings.add(format!(
                "item {:?}: it is not as it was written (its checksum differs)",
                id.as_str()
            ));
        }
        let found = tables
            .ids
            .get(&txn, &codec::id_key(row.number, &id))
            .map_err(failed)?;
        if found != Some(&place.to_le_bytes()) {
            findings.add(format!(
                "item {:?}: it cannot be found by its id",
                id.as_str()
            ));
        }
    }
    let prefix = codec::prefix(row.number);
    let ids = tables
        .ids
        .prefix_iter(&txn, &prefix)
        .map_err(failed)?
        .count() as u64;
    if ids != items || row.items != items {
        findings.add(format!(
            "{items} items are there, {ids} ids, and {} were counted",
            row.items
        ));
    }
    for (part, table) in [
        ("vectors", tables.vectors),
        ("features", tables.features),
        ("thumbnails", tables.thumbnails),
    ] {
        for entry in table.prefix_iter(&txn, &prefix).map_err(failed)? {
            let (key, _) = entry.map_err(failed)?;
            if tables.records.get(&txn, key).map_err(failed)?.is_none() {
                findings.add(format!("{part} hold an entry that belongs to no item"));
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
