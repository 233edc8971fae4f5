//! Reads items from disk: one by one, in pages, and all of a gallery.

use std::{collections::BinaryHeap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    codec::ItemRecord, consistent_state::ConsistentState, environment::Environment, memory::Memory,
    readers::Caller, view::View,
};
use crate::{
    error::{Error, Result},
    gallery::{GalleryName, Item, ItemFilter, ItemId, Parts, StoredItem},
};

pub(super) fn get(
    view: View<'_>,
    name: &GalleryName,
    id: &ItemId,
    parts: Parts,
) -> Result<Option<StoredItem>> {
    let row = view.require_gallery(name)?;
    view.find(row.number, id)?
        .map(|record| view.with_parts(&row, record.item, parts))
        .transpose()
}

/// Reads a page from the disk alone, item by item.
pub(super) fn page(
    view: View<'_>,
    name: &GalleryName,
    after: u64,
    limit: usize,
    filter: Option<&ItemFilter>,
    caller: Caller<'_>,
) -> Result<Vec<Item>> {
    let row = view.require_gallery(name)?;
    let mut items = Vec::new();
    for entry in view.records(row.number, after)? {
        caller.check()?;
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

/// Reads a page of the items that pass a filter: finds them in memory, and reads only them.
pub(super) fn filtered_page(
    environment: &Environment,
    memory: &Memory,
    name: &GalleryName,
    after: u64,
    limit: usize,
    filter: &ItemFilter,
    caller: Caller<'_>,
) -> Result<Vec<Item>> {
    let state = ConsistentState::take(environment, memory, name, caller)?;
    let view = View::new(environment, &state.txn);
    let passing = state.rows.passing(Some(filter), caller)?;
    let mut first = BinaryHeap::new();
    for (live, rows) in state.rows.chunks.iter().zip(&passing) {
        let places = rows.iter().map(|row| live.chunk.places[row]);
        for place in places.filter(|&place| place > after) {
            first.push(place);
            if first.len() > limit {
                first.pop();
            }
        }
    }
    let mut items = Vec::with_capacity(first.len());
    for place in first.into_sorted_vec() {
        caller.check()?;
        let record = view.record(state.gallery.number, place)?;
        items.extend(record.map(|record| record.item));
    }
    Ok(items)
}

/// Sends all items of a snapshot of a gallery. Sends to `started` once the snapshot is taken.
pub(super) fn send_all(
    environment: &Arc<Environment>,
    name: &GalleryName,
    parts: Parts,
    started: oneshot::Sender<Result<()>>,
    to: &mpsc::Sender<Result<StoredItem>>,
) {
    let txn = match environment.read_owned() {
        Ok(txn) => txn,
        Err(error) => return drop(started.send(Err(error))),
    };
    let view = View::new(environment, &txn);
    let row = match view.require_gallery(name) {
        Ok(row) => row,
        Err(error) => return drop(started.send(Err(error))),
    };
    let _ = started.send(Ok(()));
    let records = match view.records(row.number, 0) {
        Ok(records) => records,
        Err(error) => return drop(to.blocking_send(Err(error))),
    };
    for entry in records {
        let item = entry.and_then(|(place, bytes)| {
            let record = ItemRecord::decode(bytes).map_err(|error| {
                Error::damaged(format!("the item at place {place} is damaged: {error}"))
            })?;
            // Damage must not be copied into a snapshot.
            if parts == Parts::ALL && !view.is_whole(row.number, place, bytes)? {
                return Err(Error::damaged(format!(
                    "the item {:?} is damaged; `gallery check` lists all damaged items, store \
                     them again",
                    record.item.id.as_str()
                )));
            }
            view.with_parts(&row, record.item, parts)
        });
        // Fails if the consumer has gone.
        if to.blocking_send(item).is_err() {
            return;
        }
    }
}
