//! Reading what is on disk: items, pages, everything, and whether it is as it was written.

use std::{ops::Bound, sync::Arc};

use heed::{RoTxn, WithoutTls};
use tokio::sync::mpsc;

use super::{
    codec::{self, GalleryRow, Record},
    environment::{Environment, Table},
    memory::no_gallery,
};
use crate::{
    error::{Error, Kind, Result},
    gallery::{
        CheckReport, GalleryName, Item, ItemFilter, ItemId, Parts, StoredItem, VectorFormat,
    },
};

type View<'a> = RoTxn<'a, WithoutTls>;

/// Damaged items that a check names; of more it tells the number.
const NAMED: usize = 1000;

/// The gallery as it is kept.
pub(super) fn gallery(
    environment: &Environment,
    txn: &View<'_>,
    name: &GalleryName,
) -> Result<GalleryRow> {
    let found = environment
        .tables
        .galleries
        .get(txn, name.as_str().as_bytes());
    let found = found.map_err(|error| environment.failed(error))?;
    GalleryRow::decode(name, found.ok_or_else(|| no_gallery(name))?)
}

/// The record of an id.
pub(super) fn find(
    environment: &Environment,
    txn: &View<'_>,
    gallery: u32,
    id: &ItemId,
) -> Result<Option<Record>> {
    let Some(place) = place(environment, txn, gallery, id)? else {
        return Ok(None);
    };
    record(environment, txn, gallery, place)
}

/// The place of an id.
pub(super) fn place(
    environment: &Environment,
    txn: &View<'_>,
    gallery: u32,
    id: &ItemId,
) -> Result<Option<u64>> {
    let place = environment.tables.ids.get(txn, &codec::id_key(gallery, id));
    let place = place.map_err(|error| environment.failed(error))?;
    Ok(place
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes))
}

/// The record at a place.
pub(super) fn record(
    environment: &Environment,
    txn: &View<'_>,
    gallery: u32,
    place: u64,
) -> Result<Option<Record>> {
    let found = environment
        .tables
        .records
        .get(txn, &codec::place_key(gallery, place));
    found
        .map_err(|error| environment.failed(error))?
        .map(Record::decode)
        .transpose()
}

/// One item.
pub(super) fn get(
    environment: &Environment,
    name: &GalleryName,
    id: &ItemId,
    parts: Parts,
) -> Result<StoredItem> {
    let txn = environment.read()?;
    let row = gallery(environment, &txn, name)?;
    let missing = || {
        Error::new(
            Kind::NotFound,
            format!("the gallery `{name}` has no item {:?}", id.as_str()),
        )
    };
    let record = find(environment, &txn, row.number, id)?.ok_or_else(missing)?;
    with_parts(environment, &txn, &row, record.item, parts)
}

fn with_parts(
    environment: &Environment,
    txn: &View<'_>,
    row: &GalleryRow,
    item: Item,
    parts: Parts,
) -> Result<StoredItem> {
    let tables = &environment.tables;
    let key = codec::place_key(row.number, item.place);
    let bytes = |wanted: bool, table: Table| match wanted {
        true => table
            .get(txn, &key)
            .map_err(|error| environment.failed(error)),
        false => Ok(None),
    };
    let vector = bytes(parts.vector, tables.vectors)?.unwrap_or_default();
    let features = bytes(parts.features, tables.features)?;
    let thumbnail = bytes(parts.thumbnail, tables.thumbnails)?;
    Ok(StoredItem {
        vector: codec::decode_floats(vector, row.vectors),
        features: features.map(|bytes| codec::decode_floats(bytes, VectorFormat::F16)),
        thumbnail: thumbnail.map(bytes::Bytes::copy_from_slice),
        item,
    })
}

/// The records of a gallery after a place, with their keys.
fn records<'txn>(
    environment: &Environment,
    txn: &'txn View<'_>,
    gallery: u32,
    after: u64,
) -> Result<impl Iterator<Item = Result<(u64, &'txn [u8])>> + use<'txn>> {
    let (from, to) = (codec::place_key(gallery, after), codec::prefix(gallery + 1));
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

/// A page of items.
pub(super) fn page(
    environment: &Environment,
    name: &GalleryName,
    after: u64,
    limit: usize,
    filter: Option<&ItemFilter>,
) -> Result<Vec<Item>> {
    let txn = environment.read()?;
    let row = gallery(environment, &txn, name)?;
    let items = records(environment, &txn, row.number, after)?
        .map(|entry| Ok(Record::decode(entry?.1)?.item))
        .filter(|item: &Result<Item>| {
            let passes = |item: &Item| {
                filter.is_none_or(|filter| filter.matches(item.label.as_ref(), &item.metadata))
            };
            item.as_ref().map_or(true, passes)
        });
    items.take(limit).collect()
}

/// Sends every item of a gallery, as they are when it begins.
pub(super) fn send_all(
    environment: &Arc<Environment>,
    name: &GalleryName,
    parts: Parts,
    started: impl FnOnce(Result<()>),
    to: &mpsc::Sender<Result<StoredItem>>,
) {
    let begin = || {
        let txn = environment.read_owned()?;
        let row = gallery(environment, &txn, name)?;
        Ok((txn, row))
    };
    let (txn, row) = match begin() {
        Ok(begun) => begun,
        Err(error) => return started(Err(error)),
    };
    started(Ok(()));
    let items = match records(environment, &txn, row.number, 0) {
        Ok(items) => items,
        Err(error) => return drop(to.blocking_send(Err(error))),
    };
    for entry in items {
        let item = entry.and_then(|(place, bytes)| {
            let record = Record::decode(bytes).map_err(|error| {
                Error::internal(format!("the item at place {place} is damaged: {error}"))
            })?;
            if parts == Parts::ALL {
                check_whole(environment, &txn, row.number, &record.item, bytes)?;
            }
            with_parts(environment, &txn, &row, record.item, parts)
        });
        // The reader has gone.
        if to.blocking_send(item).is_err() {
            return;
        }
    }
}

/// Refuses an item that is not as it was written, so that no copy of it passes for whole.
fn check_whole(
    environment: &Environment,
    txn: &View<'_>,
    gallery: u32,
    item: &Item,
    record: &[u8],
) -> Result<()> {
    if Record::is_whole(
        record,
        parts(environment, txn, &codec::place_key(gallery, item.place))?,
    ) {
        return Ok(());
    }
    let detail = format!(
        "the item {:?} is damaged; `gallery check` names all such, store them anew",
        item.id.as_str()
    );
    Err(Error::internal(detail))
}

/// Vector, features and thumbnail as they are written.
fn parts<'txn>(
    environment: &Environment,
    txn: &'txn View<'_>,
    key: &[u8],
) -> Result<[&'txn [u8]; 3]> {
    let tables = &environment.tables;
    let part = |table: Table| {
        table
            .get(txn, key)
            .map_err(|error| environment.failed(error))
    };
    let [vector, features, thumbnail] = [
        part(tables.vectors)?,
        part(tables.features)?,
        part(tables.thumbnails)?,
    ];
    Ok([vector, features, thumbnail].map(Option::unwrap_or_default))
}

/// Compares everything of a gallery with its checksums, and the tables with each other.
pub(super) fn check(environment: &Environment, name: &GalleryName) -> Result<CheckReport> {
    let failed = |error| environment.failed(error);
    let txn = environment.read()?;
    let row = gallery(environment, &txn, name)?;
    let tables = &environment.tables;
    let mut report = CheckReport::default();
    let mut damage = Damage::default();
    for entry in records(environment, &txn, row.number, 0)? {
        let (place, bytes) = entry?;
        report.items += 1;
        let key = codec::place_key(row.number, place);
        let parts = parts(environment, &txn, &key)?;
        let id = match Record::decode(bytes) {
            Ok(record) if record.item.place == place => record.item.id,
            _ => {
                damage.add(format!("item {place}: its record cannot be read"));
                continue;
            }
        };
        if !Record::is_whole(bytes, parts) {
            damage.add(format!(
                "item {:?}: it is not as it was written (its checksum differs)",
                id.as_str()
            ));
        }
        let found = tables
            .ids
            .get(&txn, &codec::id_key(row.number, &id))
            .map_err(failed)?;
        if found != Some(&place.to_le_bytes()) {
            damage.add(format!(
                "item {:?}: it cannot be found by its id",
                id.as_str()
            ));
        }
    }
    let ids = tables
        .ids
        .prefix_iter(&txn, &codec::prefix(row.number))
        .map_err(failed)?
        .count() as u64;
    if ids != report.items || row.items != report.items {
        damage.add(format!(
            "{} items are there, {ids} ids, and {} were counted",
            report.items, row.items
        ));
    }
    for (what, table) in [
        ("vectors", tables.vectors),
        ("features", tables.features),
        ("thumbnails", tables.thumbnails),
    ] {
        for entry in table
            .prefix_iter(&txn, &codec::prefix(row.number))
            .map_err(failed)?
        {
            let (key, _) = entry.map_err(failed)?;
            if tables.records.get(&txn, key).map_err(failed)?.is_none() {
                damage.add(format!("{what} hold an entry that belongs to no item"));
            }
        }
    }
    report.damage = damage.finish();
    Ok(report)
}

#[derive(Default)]
struct Damage {
    named: Vec<String>,
    more: u64,
}

impl Damage {
    fn add(&mut self, what: String) {
        if self.named.len() < NAMED {
            self.named.push(what);
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.named.push(format!("and {} more", self.more));
        }
        self.named
    }
}
