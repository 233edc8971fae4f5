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
    galleries::{self, GalleryRow},
    item_row::ItemRow,
    read,
};
use crate::{
    error::Result,
    gallery::{GalleryName, Item, ItemBatch, ItemChange, ItemId, NewItem, Written},
};

/// Number of items per statement.
const CHUNK: usize = 128;

/// Stores items; see [`crate::gallery::GalleryStore::put`]. The caller holds the gallery's lock.
pub(super) async fn put(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    batch: &ItemBatch,
) -> Outcome<Vec<Written>> {
    let gallery = galleries::find_or_create(transaction, name, &batch.binding).await?;
    let known = places(transaction, &gallery, &batch.items).await?;

    let mut last_place = gallery.last_place;
    let mut rows: Vec<(i64, &NewItem)> = Vec::with_capacity(batch.items.len());
    let mut row_of: HashMap<&ItemId, usize> = HashMap::with_capacity(batch.items.len());
    let mut written = Vec::with_capacity(batch.items.len());
    for item in &batch.items {
        if let Some(&row) = row_of.get(&item.id) {
            let place = rows[row].0.unsigned_abs();
            if batch.keeps_stored {
                written.push(Written::Kept { place });
            } else {
                rows[row].1 = item;
                written.push(Written::Replaced { place });
            }
            continue;
        }
        let known_place = known.get(item.id.as_str().as_bytes()).copied();
        if batch.keeps_stored
            && let Some(place) = known_place
        {
            let place = place.unsigned_abs();
            written.push(Written::Kept { place });
            continue;
        }
        row_of.insert(&item.id, rows.len());
        last_place += i64::from(known_place.is_none());
        let row_place = known_place.unwrap_or(last_place);
        rows.push((row_place, item));
        let place = row_place.unsigned_abs();
        written.push(match known_place {
            Some(_) => Written::Replaced { place },
            None => Written::Created { place },
        });
    }

    galleries::check_place(name, last_place)?;
    let stored_ms = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as i64;
    for rows in rows.chunks(CHUNK) {
        store(transaction, &gallery, stored_ms, rows).await?;
    }
    const COUNT: &str =
        "UPDATE galleries SET items = items + $2, last_place = $3 WHERE number = $1";
    let added = last_place - gallery.last_place;
    if added > 0 {
        let statement = transaction.prepare_cached(COUNT).await?;
        transaction
            .execute(&statement, &[&gallery.number, &added, &last_place])
            .await?;
    }
    Ok(written)
}

/// Changes an item; see [`crate::gallery::GalleryStore::update`]. The caller holds the gallery's
/// lock.
pub(super) async fn update(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    id: &ItemId,
    change: &ItemChange,
) -> Outcome<Option<Item>> {
    let gallery = galleries::require(transaction, name).await?;
    let Some(stored) = read::verified_item(transaction, &gallery, id).await? else {
        return Ok(None);
    };
    let place = stored.item.place;
    let new = change.applied_to(stored);
    let stored_ms = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as i64;
    store(transaction, &gallery, stored_ms, &[(place as i64, &new)]).await?;
    Ok(Some(new.stored_at(place, stored_ms.unsigned_abs())))
}

/// Returns the places of the items that are already stored, by id.
async fn places(
    transaction: &Transaction<'_>,
    gallery: &GalleryRow,
    items: &[NewItem],
) -> Outcome<HashMap<Vec<u8>, i64>> {
    if gallery.info.items == 0 {
        return Ok(HashMap::new());
    }
    let ids: Vec<&[u8]> = items
        .iter()
        .map(|item| item.id.as_str().as_bytes())
        .collect();
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
         ON CONFLICT (place) DO UPDATE SET
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
    let gallery = galleries::require(transaction, name).await?;
    let requested: Vec<&[u8]> = ids.iter().map(|id| id.as_str().as_bytes()).collect();
    let table = &gallery.table;
    let statement = format!("DELETE FROM {table} WHERE id = ANY($1) RETURNING id");
    let rows = transaction
        .query_typed(&statement, &[(&requested, Type::BYTEA_ARRAY)])
        .await?;
    if !rows.is_empty() {
        const COUNT: &str = "UPDATE galleries SET items = items - $2 WHERE number = $1";
        let statement = transaction.prepare_cached(COUNT).await?;
        transaction
            .execute(&statement, &[&gallery.number, &(rows.len() as i64)])
            .await?;
    }
    // For an id that is given twice, only the first counts.
    let mut deleted: HashSet<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
    Ok(requested.into_iter().map(|id| deleted.remove(id)).collect())
}
