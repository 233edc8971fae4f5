//! Stores and deletes items.

use std::{
    collections::{HashMap, HashSet},
    time::UNIX_EPOCH,
};

use deadpool_postgres::Transaction;
use pgvector::Vector;
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};

use super::{
    failure::Outcome,
    filtering::terms,
    galleries::{self, Layout},
    gallery_row::{self, GalleryRow},
    item_row::ItemRow,
    read,
};
use crate::{
    error::Result,
    gallery::{GalleryName, Item, ItemBatch, ItemChange, ItemId, NewItem, Written},
};

/// Number of items per statement.
const CHUNK: usize = 128;

/// Stores batches one after the other; see [`crate::gallery::GalleryStore::put`]. All have the
/// binding of the first, and all keep stored items or none does. The caller holds the gallery's
/// lock.
pub(super) async fn put(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    batches: &[&ItemBatch],
    layout: Layout,
) -> Outcome<Vec<Vec<Written>>> {
    let Some(first) = batches.first() else {
        return Ok(Vec::new());
    };
    let gallery = galleries::find_or_create(transaction, name, &first.binding, layout).await?;
    let items = batches.iter().flat_map(|batch| &batch.items);
    let known = places(transaction, &gallery, items.clone()).await?;

    let mut new_rows = NewRows {
        known,
        rows: Vec::with_capacity(items.clone().count()),
        row_of: HashMap::new(),
        last_place: gallery.last_place,
    };
    let mut written = Vec::with_capacity(batches.len());
    for batch in batches {
        let items = batch.items.iter();
        let of_batch = items.map(|item| new_rows.add(item, first.keeps_stored));
        written.push(of_batch.collect());
    }

    galleries::check_place(name, new_rows.last_place)?;
    let stored_ms = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as i64;
    for rows in new_rows.rows.chunks(CHUNK) {
        store(transaction, &gallery, stored_ms, rows).await?;
    }
    if !new_rows.rows.is_empty() {
        let added = new_rows.last_place - gallery.last_place;
        galleries::count_write(transaction, &gallery, added, new_rows.last_place).await?;
    }
    Ok(written)
}

/// Rows that a write will store, each id once.
struct NewRows<'a> {
    /// Places of stored items, by id.
    known: HashMap<Vec<u8>, i64>,
    rows: Vec<(i64, &'a NewItem)>,
    row_of: HashMap<&'a ItemId, usize>,
    last_place: i64,
}

impl<'a> NewRows<'a> {
    fn add(&mut self, item: &'a NewItem, keeps_stored: bool) -> Written {
        if let Some(&row) = self.row_of.get(&item.id) {
            let place = self.rows[row].0.unsigned_abs();
            if keeps_stored {
                return Written::Kept { place };
            }
            self.rows[row].1 = item;
            return Written::Replaced { place };
        }
        let known = self.known.get(item.id.as_str().as_bytes()).copied();
        if keeps_stored && let Some(place) = known {
            let place = place.unsigned_abs();
            return Written::Kept { place };
        }
        self.last_place += i64::from(known.is_none());
        let place = known.unwrap_or(self.last_place);
        self.row_of.insert(&item.id, self.rows.len());
        self.rows.push((place, item));
        let place = place.unsigned_abs();
        match known {
            Some(_) => Written::Replaced { place },
            None => Written::Created { place },
        }
    }
}

/// Changes an item; see [`crate::gallery::GalleryStore::update`]. The caller holds the gallery's
/// lock.
pub(super) async fn update(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    id: &ItemId,
    change: &ItemChange,
) -> Outcome<Option<Item>> {
    let gallery = gallery_row::require(transaction, name).await?;
    let Some(stored) = read::verified_item(transaction, &gallery, id).await? else {
        return Ok(None);
    };
    let place = stored.item.place;
    let new = change.applied_to(stored);
    let stored_ms = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as i64;
    store(transaction, &gallery, stored_ms, &[(place as i64, &new)]).await?;
    galleries::count_write(transaction, &gallery, 0, gallery.last_place).await?;
    Ok(Some(new.stored_at(place, stored_ms.unsigned_abs())))
}

/// Returns the places of the items that are already stored, by id.
async fn places(
    transaction: &Transaction<'_>,
    gallery: &GalleryRow,
    items: impl Iterator<Item = &NewItem>,
) -> Outcome<HashMap<Vec<u8>, i64>> {
    if gallery.info.items == 0 {
        return Ok(HashMap::new());
    }
    let ids: Vec<&[u8]> = items.map(|item| item.id.as_str().as_bytes()).collect();
    let query = format!("SELECT id, place FROM {} WHERE id = ANY($1)", gallery.table);
    let rows = transaction
        .query_typed(&query, &[(&ids, Type::BYTEA_ARRAY)])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn store(
    transaction: &Transaction<'_>,
    gallery: &GalleryRow,
    stored_ms: i64,
    rows: &[(i64, &NewItem)],
) -> Outcome<()> {
    let mut records = rows
        .iter()
        .map(|(place, item)| ItemRow::new(*place, stored_ms, item))
        .collect::<Result<Vec<ItemRow<'_>>>>()?;
    let checksums: Vec<i64> = records.iter().map(ItemRow::checksum).collect();
    let terms: Vec<Value> = rows.iter().map(|(_, item)| terms(&item.metadata)).collect();
    let vectors: Vec<Vector> = records
        .iter_mut()
        .map(|record| std::mem::replace(&mut record.vector, Vec::new().into()))
        .collect();
    let statement = format!(
        "INSERT INTO {} (place, stored_ms, checksum, vector, id, label, metadata, terms, features,
                         thumbnail)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::vector[], $5::bytea[],
                              $6::text[], $7::text[], $8::jsonb[], $9::bytea[], $10::bytea[])
         ON CONFLICT (id) DO UPDATE SET
             stored_ms = excluded.stored_ms, checksum = excluded.checksum, vector = excluded.vector,
             label = excluded.label, metadata = excluded.metadata, terms = excluded.terms,
             features = excluded.features, thumbnail = excluded.thumbnail",
        gallery.table
    );
    let columns: [&(dyn ToSql + Sync); 10] = [
        &column(&records, |record| record.place),
        &column(&records, |record| record.stored_ms),
        &checksums,
        &vectors,
        &column(&records, |record| record.id),
        &column(&records, |record| record.label),
        &column(&records, |record| record.metadata.as_str()),
        &terms,
        &column(&records, |record| record.features.as_deref()),
        &column(&records, |record| record.thumbnail),
    ];
    transaction.execute(&statement, &columns).await?;
    Ok(())
}

fn column<'r, T>(records: &'r [ItemRow<'_>], value: impl Fn(&'r ItemRow<'_>) -> T) -> Vec<T> {
    records.iter().map(value).collect()
}

/// Deletes items; see [`crate::gallery::GalleryStore::delete`]. The caller holds the gallery's
/// lock.
pub(super) async fn delete(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    ids: &[ItemId],
) -> Outcome<Vec<bool>> {
    let gallery = gallery_row::require(transaction, name).await?;
    let requested: Vec<&[u8]> = ids.iter().map(|id| id.as_str().as_bytes()).collect();
    let table = &gallery.table;
    let statement = format!("DELETE FROM {table} WHERE id = ANY($1) RETURNING id");
    let rows = transaction
        .query_typed(&statement, &[(&requested, Type::BYTEA_ARRAY)])
        .await?;
    if !rows.is_empty() {
        let added = -(rows.len() as i64);
        galleries::count_write(transaction, &gallery, added, gallery.last_place).await?;
    }
    // For an id that is given twice, only the first counts.
    let mut deleted: HashSet<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
    Ok(requested.into_iter().map(|id| deleted.remove(id)).collect())
}
