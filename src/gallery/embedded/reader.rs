//! Reads items from disk: one by one, in pages, and all of a gallery.

use std::{ops::Bound, sync::Arc};

use heed::{RoTxn, WithoutTls};
use tokio::sync::mpsc;

use super::{
    codec::{self, GalleryRow, ItemRecord},
    environment::Environment,
    tables::Table,
};
use crate::{
    error::{Error, Result},
    gallery::{GalleryName, Item, ItemFilter, ItemId, Parts, StoredItem, VectorFormat, no_gallery},
};

/// A snapshot of the database; a write transaction is one, too.
pub(super) type ReadTransaction<'a> = RoTxn<'a, WithoutTls>;

/// Returns all galleries, by name.
pub(super) fn galleries(environment: &Environment) -> Result<Vec<(GalleryName, GalleryRow)>> {
    let txn = environment.read()?;
    let entries = environment
        .tables
        .galleries
        .iter(&txn)
        .map_err(|error| environment.failed(error))?;
    let mut found = Vec::new();
    for entry in entries {
        let (key, value) = entry.map_err(|error| environment.failed(error))?;
        let name = GalleryName::new(String::from_utf8_lossy(key))?;
        let row = GalleryRow::decode(&name, value)?;
        found.push((name, row));
    }
    Ok(found)
}

/// Looks up a gallery.
pub(super) fn gallery(
    environment: &Environment,
    txn: &ReadTransaction<'_>,
    name: &GalleryName,
) -> Result<Option<GalleryRow>> {
    environment
        .tables
        .galleries
        .get(txn, name.as_str().as_bytes())
        .map_err(|error| environment.failed(error))?
        .map(|bytes| GalleryRow::decode(name, bytes))
        .transpose()
}

/// Looks up a gallery that must exist.
pub(super) fn require_gallery(
    environment: &Environment,
    txn: &ReadTransaction<'_>,
    name: &GalleryName,
) -> Result<GalleryRow> {
    gallery(environment, txn, name)?.ok_or_else(|| no_gallery(name))
}

/// Looks up the record of an id.
pub(super) fn find(
    environment: &Environment,
    txn: &ReadTransaction<'_>,
    gallery: u32,
    id: &ItemId,
) -> Result<Option<ItemRecord>> {
    match place(environment, txn, gallery, id)? {
        Some(place) => record(environment, txn, gallery, place),
        None => Ok(None),
    }
}

/// Looks up the place of an id.
pub(super) fn place(
    environment: &Environment,
    txn: &ReadTransaction<'_>,
    gallery: u32,
    id: &ItemId,
) -> Result<Option<u64>> {
    let place = environment
        .tables
        .ids
        .get(txn, &codec::id_key(gallery, id))
        .map_err(|error| environment.failed(error))?;
    Ok(place
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes))
}

/// Reads the record at a place.
pub(super) fn record(
    environment: &Environment,
    txn: &ReadTransaction<'_>,
    gallery: u32,
    place: u64,
) -> Result<Option<ItemRecord>> {
    environment
        .tables
        .records
        .get(txn, &codec::place_key(gallery, place))
        .map_err(|error| environment.failed(error))?
        .map(ItemRecord::decode)
        .transpose()
}

/// Reads an item with the requested parts.
pub(super) fn get(
    environment: &Environment,
    name: &GalleryName,
    id: &ItemId,
    parts: Parts,
) -> Result<Option<StoredItem>> {
    let txn = environment.read()?;
    let row = require_gallery(environment, &txn, name)?;
    find(environment, &txn, row.number, id)?
        .map(|record| with_parts(environment, &txn, &row, record.item, parts))
        .transpose()
}

fn with_parts(
    environment: &Environment,
    txn: &ReadTransaction<'_>,
    row: &GalleryRow,
    item: Item,
    parts: Parts,
) -> Result<StoredItem> {
    let tables = &environment.tables;
    let key = codec::place_key(row.number, item.place);
    let part = |requested: bool, table: Table| match requested {
        true => table
            .get(txn, &key)
            .map_err(|error| environment.failed(error)),
        false => Ok(None),
    };
    let vector = part(parts.vector, tables.vectors)?.unwrap_or_default();
    let features = part(parts.features, tables.features)?;
    let thumbnail = part(parts.thumbnail, tables.thumbnails)?;
    Ok(StoredItem {
        vector: codec::decode_floats(vector, row.vectors),
        features: features.map(|bytes| codec::decode_floats(bytes, VectorFormat::F16)),
        thumbnail: thumbnail.map(bytes::Bytes::copy_from_slice),
        item,
    })
}

/// Iterates over the records of a gallery after a place, with their places.
pub(super) fn records<'txn>(
    environment: &Environment,
    txn: &'txn ReadTransaction<'_>,
    gallery: u32,
    after: u64,
) -> Result<impl Iterator<Item = Result<(u64, &'txn [u8])>> + use<'txn>> {
    let from = codec::place_key(gallery, after);
    let to = codec::prefix(gallery + 1);
    let range = (Bound::Excluded(&from[..]), Bound::Excluded(&to[..]));
    let entries = environment
        .tables
        .records
        .range(txn, &range)
        .map_err(|error| environment.failed(error))?;
    Ok(entries.map(|entry| {
        let (key, value) =
            entry.map_err(|error| Error::internal(format!("the gallery's database: {error}")))?;
        Ok((codec::place_of(key)?, value))
    }))
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
    let row = require_gallery(environment, &txn, name)?;
    let mut items = Vec::new();
    for entry in records(environment, &txn, row.number, after)? {
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
    let snapshot = environment.read_owned().and_then(|txn| {
        let row = require_gallery(environment, &txn, name)?;
        Ok((txn, row))
    });
    let (txn, row) = match snapshot {
        Ok(snapshot) => snapshot,
        Err(error) => return started(Err(error)),
    };
    started(Ok(()));
    let items = match records(environment, &txn, row.number, 0) {
        Ok(items) => items,
        Err(error) => return drop(to.blocking_send(Err(error))),
    };
    for entry in items {
        let item = entry.and_then(|(place, bytes)| {
            let record = ItemRecord::decode(bytes).map_err(|error| {
                Error::internal(format!("the item at place {place} is damaged: {error}"))
            })?;
            if parts == Parts::ALL {
                verify(environment, &txn, row.number, &record.item, bytes)?;
            }
            with_parts(environment, &txn, &row, record.item, parts)
        });
        // Fails if the consumer has gone.
        if to.blocking_send(item).is_err() {
            return;
        }
    }
}

/// Rejects an item whose checksum differs, so that damage is not copied into a snapshot.
fn verify(
    environment: &Environment,
    txn: &ReadTransaction<'_>,
    gallery: u32,
    item: &Item,
    record: &[u8],
) -> Result<()> {
    let parts = encoded_parts(environment, txn, &codec::place_key(gallery, item.place))?;
    if ItemRecord::is_whole(record, parts) {
        return Ok(());
    }
    let detail = format!(
        "the item {:?} is damaged; `gallery check` lists all damaged items, store them again",
        item.id.as_str()
    );
    Err(Error::internal(detail))
}

/// Returns vector, features and thumbnail as they are on disk.
pub(super) fn encoded_parts<'txn>(
    environment: &Environment,
    txn: &'txn ReadTransaction<'_>,
    key: &[u8],
) -> Result<[&'txn [u8]; 3]> {
    let tables = &environment.tables;
    let mut parts = [[].as_slice(); 3];
    for (part, table) in parts
        .iter_mut()
        .zip([tables.vectors, tables.features, tables.thumbnails])
    {
        *part = table
            .get(txn, key)
            .map_err(|error| environment.failed(error))?
            .unwrap_or_default();
    }
    Ok(parts)
}
