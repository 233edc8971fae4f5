//! Verifies a gallery on disk.

use super::{
    codec::{self, ItemRecord},
    view::View,
};
use crate::{
    error::Result,
    gallery::{CheckReport, GalleryName, item::check_vector},
};

/// Maximum number of findings that a check lists; it only counts further ones.
const MAX_FINDINGS: usize = 1000;

/// Compares everything of a gallery with its checksums, and the tables with each other.
pub(super) fn check(view: View<'_>, name: &GalleryName) -> Result<CheckReport> {
    let row = view.require_gallery(name)?;
    let tables = view.tables();
    let mut items = 0;
    let mut damage = Vec::new();
    let mut more = 0;
    let mut add = |finding: String| {
        if damage.len() < MAX_FINDINGS {
            damage.push(finding);
        } else {
            more += 1;
        }
    };
    for entry in view.records(row.number, 0)? {
        let (place, bytes) = entry?;
        items += 1;
        let record = ItemRecord::decode(bytes).and_then(|record| record.check(&row, place));
        let id = match record {
            Ok(record) => record.item.id,
            Err(_) => {
                add(format!("item {place}: its record cannot be read"));
                continue;
            }
        };
        let text = id.as_str();
        if !view.is_whole(row.number, place, bytes)? {
            add(format!(
                "item {text:?}: its checksum differs from its content"
            ));
        }
        let vector = view.get(tables.vectors, &codec::place_key(row.number, place))?;
        let vector = codec::decode_vector(vector.unwrap_or_default(), row.binding.dim);
        if let Err(error) = check_vector(&vector, row.binding.dim) {
            add(format!("item {text:?}: {error}"));
        }
        if view.place(row.number, &id)? != Some(place) {
            add(format!("item {text:?}: it cannot be found by its id"));
        }
    }
    let prefix = codec::prefix(row.number);
    let ids = view.entries(tables.ids, &prefix)?.count() as u64;
    if ids != items || row.items != items {
        add(format!(
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
                add(format!("the {part} have an entry that belongs to no item"));
            }
        }
    }
    if more > 0 {
        damage.push(format!("and {more} more"));
    }
    Ok(CheckReport { items, damage })
}
