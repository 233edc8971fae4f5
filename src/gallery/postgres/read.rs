//! Reads items: one by one, in pages, and all of a gallery.

use deadpool_postgres::{Object, Transaction};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::{Row, types::Type};

use super::{
    connection::{Connection, LongConnection},
    failure::{Failure, Outcome},
    filtering::{self, Parameters, terms},
    gallery_row::{self, GalleryRow, Version},
    item_row::{self, ItemRow},
};
use crate::{
    error::Error,
    gallery::{CheckReport, GalleryName, Item, ItemFilter, ItemId, ItemStream, Parts, StoredItem},
};

const FETCH_ROWS: usize = 64;

pub(super) async fn get(
    client: &Connection,
    name: &GalleryName,
    id: &ItemId,
    parts: Parts,
) -> Outcome<Option<StoredItem>> {
    let gallery = gallery_row::require(client, name).await?;
    let columns = item_row::columns(parts);
    let query = format!("SELECT {columns} FROM {} WHERE id = $1", gallery.table);
    let id = id.as_str().as_bytes();
    let rows = client.query_typed(&query, &[(&id, Type::BYTEA)]).await?;
    rows.first().map(item_row::stored_item).transpose()
}

pub(super) async fn page(
    client: &Connection,
    name: &GalleryName,
    after: u64,
    limit: usize,
    filter: Option<&ItemFilter>,
    at_least: Option<Version>,
) -> Outcome<Vec<Item>> {
    let gallery = gallery_row::require_version(client, name, at_least).await?;
    let mut parameters = Parameters::default();
    let after = parameters.bind(i64::try_from(after).unwrap_or(i64::MAX), Type::INT8);
    let limit = parameters.bind(i64::try_from(limit).unwrap_or(i64::MAX), Type::INT8);
    let passes = filtering::expression(filter, &mut parameters);
    let query = format!(
        "SELECT {} FROM {} WHERE place > {after} AND {passes} ORDER BY place LIMIT {limit}",
        item_row::ITEM,
        gallery.table
    );
    let rows = client.query_typed(&query, &parameters.bound()).await?;
    rows.iter().map(item_row::item).collect()
}

/// Cursor over all items of a snapshot. The connection is returned to the pool at the end, and
/// closed if the reader stops before.
pub(super) struct Cursor {
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
    /// Number of items by the gallery's row.
    items: u64,
}

impl Cursor {
    pub(super) async fn open(
        (connection, permit): LongConnection,
        name: &GalleryName,
        columns: &str,
    ) -> Outcome<Self> {
        let mut cursor = Self {
            connection: Some(connection),
            _permit: permit,
            items: 0,
        };
        let client = cursor.connection()?;
        // A slow client pauses the transaction.
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                             SET LOCAL idle_in_transaction_session_timeout = '10min'";
        // The client looks up a type that is new to a connection while the rows of the first answer
        // wait, and more than a few of these would wait forever.
        client.query_typed("SELECT NULL::vector", &[]).await?;
        client.batch_execute(BEGIN).await?;
        let gallery = gallery_row::require(client, name).await?;
        let declare = format!(
            "DECLARE everything NO SCROLL CURSOR FOR SELECT {columns} FROM {} ORDER BY place",
            gallery.table
        );
        client.batch_execute(&declare).await?;
        cursor.items = gallery.info.items;
        Ok(cursor)
    }

    fn connection(&self) -> Outcome<&Connection> {
        let connection = self.connection.as_ref();
        Ok(connection.ok_or_else(|| Error::internal("a cursor is read after its end"))?)
    }

    /// Returns the next rows; none at the end.
    pub(super) async fn next(&mut self) -> Outcome<Vec<Row>> {
        let client = self.connection()?;
        let fetch = format!("FETCH {FETCH_ROWS} FROM everything");
        let rows = client.query_typed(&fetch, &[]).await?;
        if rows.is_empty() {
            client.batch_execute("COMMIT").await?;
            self.connection = None;
        }
        Ok(rows)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // The connection is still in a transaction; closing it ends the transaction.
        drop(self.connection.take().map(Object::take));
    }
}

pub(super) fn items(cursor: Cursor) -> ItemStream {
    rows(cursor)
        .map(|row| Ok(item_row::stored_item(&row?)?))
        .boxed()
}

/// Streams the items of a cursor over [`checked_columns`], and fails at a damaged one, so that
/// damage is not copied into a snapshot.
pub(super) fn verified_items(cursor: Cursor) -> ItemStream {
    rows(cursor).map(|row| Ok(verified(&row?)?)).boxed()
}

/// Reads an item with all parts, and fails if it is damaged.
pub(super) async fn verified_item(
    transaction: &Transaction<'_>,
    gallery: &GalleryRow,
    id: &ItemId,
) -> Outcome<Option<StoredItem>> {
    let columns = checked_columns();
    let query = format!("SELECT {columns} FROM {} WHERE id = $1", gallery.table);
    let id = id.as_str().as_bytes();
    let rows = transaction
        .query_typed(&query, &[(&id, Type::BYTEA)])
        .await?;
    rows.first().map(verified).transpose()
}

fn verified(row: &Row) -> Outcome<StoredItem> {
    if let Some(damage) = find_damage(row) {
        let place: i64 = row.try_get("place")?;
        let detail = format!(
            "the item at place {place} is damaged: {damage}; `gallery check` lists all damaged \
             items"
        );
        return Err(Error::damaged(detail).into());
    }
    item_row::stored_item(row)
}

fn rows(cursor: Cursor) -> impl Stream<Item = Outcome<Row>> {
    stream::try_unfold(cursor, |mut cursor: Cursor| async move {
        let rows = cursor.next().await?;
        let more =
            (!rows.is_empty()).then_some((stream::iter(rows).map(Ok::<Row, Failure>), cursor));
        Ok::<_, Failure>(more)
    })
    .try_flatten()
}

/// Returns the columns that [`verified_items`] and [`check`] read.
pub(super) fn checked_columns() -> String {
    format!("{}, checksum, terms", item_row::columns(Parts::ALL))
}

/// Compares every row with its checksum, and the number of rows with the gallery's row.
pub(super) async fn check(mut cursor: Cursor) -> Outcome<CheckReport> {
    let mut report = CheckReport::default();
    let mut last_place = 0i64;
    loop {
        let rows = match cursor.next().await {
            Ok(rows) => rows,
            Err(failure) if failure.is_damage() => {
                report.damage.push(format!(
                    "after place {last_place} nothing more can be read: {}",
                    Error::from(failure)
                ));
                return Ok(report);
            }
            Err(failure) => return Err(failure),
        };
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            last_place = row.try_get("place")?;
            report.items += 1;
            if let Some(damage) = find_damage(row) {
                report
                    .damage
                    .push(format!("the item at place {last_place}: {damage}"));
            }
        }
    }
    if report.items != cursor.items {
        report.damage.push(format!(
            "the gallery counts {} items and has {}",
            cursor.items, report.items
        ));
    }
    Ok(report)
}

/// Returns a description of the damage to a row, if any.
fn find_damage(row: &Row) -> Option<String> {
    let stored = match ItemRow::read(row) {
        Ok(stored) => stored,
        Err(failure) => return Some(Error::from(failure).to_string()),
    };
    if row.get::<_, i64>("checksum") != stored.checksum() {
        return Some(format!(
            "the checksum of {:?} differs from its content",
            String::from_utf8_lossy(stored.id)
        ));
    }
    match item_row::item(row) {
        Ok(item) if terms(&item.metadata) == row.get::<_, Value>("terms") => None,
        Ok(item) => Some(format!(
            "the filter terms of {:?} differ from its metadata",
            item.id.as_str()
        )),
        Err(failure) => Some(Error::from(failure).to_string()),
    }
}
