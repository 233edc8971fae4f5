//! Storing and deleting items.

use std::{
    collections::{HashMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use deadpool_postgres::Transaction;
use pgvector::Vector;
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};

use super::{
    failure::Outcome,
    filtering::terms,
    galleries::{self, Found},
    record::Record,
};
use crate::{
    error::Error,
    gallery::{Binding, GalleryName, ItemId, NewItem},
};

/// Items of one statement.
const CHUNK: usize = 128;

/// Stores items; see [`crate::gallery::GalleryStore::put`].
pub(super) async fn put(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    binding: &Binding,
    items: &[NewItem],
) -> Outcome<Vec<bool>> {
    if let Some(item) = items.iter().find(|item| item.vector.len() != binding.dim) {
        let detail = format!(
            "{} numbers, and the gallery's vectors have {}",
            item.vector.len(),
            binding.dim
        );
        return Err(Error::option("vector", detail).into());
    }
    galleries::lock(transaction, &[name]).await?;
    let gallery = galleries::find_or_create(transaction, name, binding).await?;
    let known = places(transaction, &gallery, items).await?;

    let mut last_place = gallery.last_place;
    let mut rows: Vec<(i64, &NewItem)> = Vec::with_capacity(items.len());
    let mut row_of: HashMap<&ItemId, usize> = HashMap::with_capacity(items.len());
    let mut new = Vec::with_capacity(items.len());
    for item in items {
        if let Some(&row) = row_of.get(&item.id) {
            rows[row].1 = item;
            new.push(false);
            continue;
        }
        let place = known.get(item.id.as_str().as_bytes()).copied();
        row_of.insert(&item.id, rows.len());
        rows.push((place.unwrap_or(last_place + 1), item));
        last_place += i64::from(place.is_none());
        new.push(place.is_none());
    }

    let stored_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as i64;
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
    Ok(new)
}

/// The places of those that are stored already, by id.
async fn places(
    transaction: &Transaction<'_>,
    gallery: &Found,
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
    gallery: &Found,
    stored_ms: i64,
    rows: &[(i64, &NewItem)],
) -> Outcome<()> {
    let records = rows
        .iter()
        .map(|(place, item)| Record::new(*place, stored_ms, item));
    let mut records = records.collect::<crate::error::Result<Vec<Record<'_>>>>()?;
    let checksums: Vec<i64> = records.iter().map(Record::checksum).collect();
    let terms: Vec<Value> = rows.iter().map(|(_, item)| terms(&item.metadata)).collect();
    let places: Vec<i64> = records.iter().map(|record| record.place).collect();
    let times: Vec<i64> = records.iter().map(|record| record.stored_ms).collect();
    let vectors: Vec<Vector> = records
        .iter_mut()
        .map(|record| std::mem::replace(&mut record.vector, Vec::new().into()))
        .collect();
    let ids: Vec<&[u8]> = records.iter().map(|record| record.id).collect();
    let labels: Vec<Option<&str>> = records.iter().map(|record| record.label).collect();
    let metadata: Vec<&str> = records
        .iter()
        .map(|record| record.metadata.as_str())
        .collect();
    let features: Vec<Option<&[u8]>> = records
        .iter()
        .map(|record| record.features.as_deref())
        .collect();
    let thumbnails: Vec<Option<&[u8]>> = records.iter().map(|record| record.thumbnail).collect();
    let statement = format!(
        "INSERT INTO {} (place, stored_ms, checksum, vector, id, label, metadata, terms, features, thumbnail)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::vector[], $5::bytea[], $6::text[], $7::text[],
                              $8::jsonb[], $9::bytea[], $10::bytea[])
         ON CONFLICT (place) DO UPDATE SET
             stored_ms = excluded.stored_ms, checksum = excluded.checksum, vector = excluded.vector,
             label = excluded.label, metadata = excluded.metadata, terms = excluded.terms,
             features = excluded.features, thumbnail = excluded.thumbnail",
        gallery.table
    );
    let columns: [&(dyn ToSql + Sync); 10] = [
        &places,
        &times,
        &checksums,
        &vectors,
        &ids,
        &labels,
        &metadata,
        &terms,
        &features,
        &thumbnails,
    ];
    transaction.execute(&statement, &columns).await?;
    Ok(())
}

/// Deletes items; see [`crate::gallery::GalleryStore::delete`].
pub(super) async fn delete(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    ids: &[ItemId],
) -> Outcome<Vec<bool>> {
    galleries::lock(transaction, &[name]).await?;
    let gallery = galleries::find(transaction, name).await?;
    let sought: Vec<&[u8]> = ids.iter().map(|id| id.as_str().as_bytes()).collect();
    let statement = format!(
        "DELETE FROM {} WHERE id = ANY($1) RETURNING id",
        gallery.table
    );
    let rows = transaction
        .query_typed(&statement, &[(&sought, Type::BYTEA_ARRAY)])
        .await?;
    if !rows.is_empty() {
        const COUNT: &str = "UPDATE galleries SET items = items - $2 WHERE number = $1";
        let statement = transaction.prepare_cached(COUNT).await?;
        transaction
            .execute(&statement, &[&gallery.number, &(rows.len() as i64)])
            .await?;
    }
    // Of an id that is given twice the first deleted it.
    let mut deleted: HashSet<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
    Ok(sought.into_iter().map(|id| deleted.remove(id)).collect())
}
