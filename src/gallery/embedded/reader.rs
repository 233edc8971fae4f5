//! Reads items from disk: one by one, in pages, and all of a gallery.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{codec::ItemRecord, environment::Environment, view::View};
use crate::{
    error::{Error, Result},
    gallery::{GalleryName, Item, ItemFilter, ItemId, Parts, StoredItem},
};

/// Reads an item with the requested parts.
pub(super) fn get(
    environment: &Environment,
    name: &GalleryName,
    id: &ItemId,
    parts: Parts,
) -> Result<Option<StoredItem>> {
    let txn = environment.read()?;
    let view = View::new(environment, &txn);
    let row = view.require_gallery(name)?;
    view.find(row.number, id)?
        .map(|record| view.with_parts(&row, record.item, parts))
        .transpose()
}

/// Reads up to `limit` items that pass the filter and whose place is above `after`.
pub(super) fn page(
    environment: &Environment,
    name: &GalleryName,
    after: u64,
    limit: usize,
    filter: Option<&ItemFilter>,
) -> Result<Vec<Item>> {
    let txn = environment.read()?;
    let view = View::new(environment, &txn);
    let row = view.require_gallery(name)?;
    let mut items = Vec::new();
    for entry in view.records(row.number, after)? {
        if items.len() == limit {
            break;
        }
        let item = ItemRecord::decode(entry?.1)?.item;
        if filter.is_none_or(|filter| filter.matches(item.label.as_ref(), &item.metadata)) {
            items.push(item);
        }
    }
    Ok(items)
}

/// Sends all items of a snapshot of a gallery. Calls `started` once the snapshot is taken.
pub(super) fn send_all(
    environment: &Arc<Environment>,
    name: &GalleryName,
    parts: Parts,
    started: impl FnOnce(Result<()>),
    to: &mpsc::Sender<Result<StoredItem>>,
) {
    let txn = match environment.read_owned() {
        Ok(txn) => txn,
        Err(error) => return started(Err(error)),
    };
    let view = View::new(environment, &txn);
    let row = match view.require_gallery(name) {
        Ok(row) => row,
        Err(error) => return started(Err(error)),
    };
    started(Ok(()));
    let records = match view.records(row.number, 0) {
        Ok(records) => records,
        Err(error) => return drop(to.blocking_send(Err(error))),
    };
    for entry in records {
        let item = entry.and_then(|(place, bytes)| {
            let record = ItemRecord::decode(bytes).map_err(|error| {
                Error::internal(format!("the item at place {place} is damaged: {error}"))
            })?;
            if parts == Parts::ALL {
                verify(view, row.number, &record.item, bytes)?;
            }
            view.with_parts(&row, record.item, parts)
        });
        // Fails if the consumer has gone.
        if to.blocking_send(item).is_err() {
            return;
        }
    }
}

/// Rejects an item whose checksum differs, so that damage is not copied into a snapshot.
fn verify(view: View<'_>, gallery: u32, item: &Item, record: &[u8]) -> Result<()> {
    if ItemRecord::is_whole(record, view.encoded_parts(gallery, item.place)?) {
        return Ok(());
    }
    let detail = format!(
        "the item {:?} is damaged; `gallery check` lists all damaged items, store them again",
        item.id.as_str()
    );
    Err(Error::internal(detail))
}
