//! Reading items one by one, in pages, and all in a row.

use deadpool_postgres::Object;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::{Row, types::Type};

use super::{
    connection::{Connection, Placed},
    failure::{Failure, Outcome},
    filtering::{self, Parameters, terms},
    galleries,
    record::{self, Record},
};
use crate::{
    error::{Error, Kind},
    gallery::{CheckReport, GalleryName, Item, ItemFilter, ItemId, ItemStream, Parts, StoredItem},
};

/// Rows that are fetched at once.
const CHUNK: usize = 64;

/// One item.
pub(super) async fn get(
    client: Connection,
    name: &GalleryName,
    id: &ItemId,
    parts: Parts,
) -> Outcome<StoredItem> {
    let gallery = galleries::find(&client, name).await?;
    let query = format!(
        "SELECT {} FROM {} WHERE id = $1",
        record::columns(parts),
        gallery.table
    );
    let row = client
        .query_typed(&query, &[(&id.as_str().as_bytes(), Type::BYTEA)])
        .await?;
    let row = row.first().ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("the gallery `{name}` has no item {:?}", id.as_str()),
        )
    })?;
    record::stored_item(row)
}

/// A page of items.
pub(super) async fn page(
    client: Connection,
    name: &GalleryName,
    after: u64,
    limit: usize,
    filter: Option<&ItemFilter>,
) -> Outcome<Vec<Item>> {
    let gallery = galleries::find(&client, name).await?;
    let mut parameters = Parameters::default();
    let after = parameters.bind(i64::try_from(after).unwrap_or(i64::MAX), Type::INT8);
    let limit = parameters.bind(i64::try_from(limit).unwrap_or(i64::MAX), Type::INT8);
    let passes = filtering::expression(filter, &mut parameters);
    let query = format!(
        "SELECT {} FROM {} WHERE place > {after} AND {passes} ORDER BY place LIMIT {limit}",
        record::ITEM,
        gallery.table
    );
    client
        .query_typed(&query, &parameters.bound())
        .await?
        .iter()
        .map(record::item)
        .collect()
}

/// All items of a gallery as they are at one moment. The connection is given back at the end, and
/// closed if the reader leaves before.
pub(super) struct Cursor {
    connection: Option<Connection>,
    _place: OwnedSemaphorePermit,
    /// What the gallery's row says at that moment.
    items: u64,
}

impl Cursor {
    /// Begins to read these columns.
    pub(super) async fn open(placed: Placed, name: &GalleryName, columns: &str) -> Outcome<Self> {
        let mut cursor = Self {
            connection: Some(placed.connection),
            _place: placed.place,
            items: 0,
        };
        let client = cursor.connection()?;
        // Readers may pause for as long as a slow client takes.
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                             SET LOCAL idle_in_transaction_session_timeout = '10min'";
        client.batch_execute(BEGIN).await?;
        let gallery = galleries::find(client, name).await?;
        let declare = format!(
            "DECLARE everything NO SCROLL CURSOR FOR SELECT {columns} FROM {} ORDER BY place",
            gallery.table
        );
        client.batch_execute(&declare).await?;
        cursor.items = gallery.info.items;
        Ok(cursor)
    }

    fn connection(&self) -> Outcome<&Connection> {
        Ok(self
            .connection
            .as_ref()
            .ok_or_else(|| Error::internal("a cursor is read after its end"))?)
    }

    /// The next rows; none at the end.
    pub(super) async fn next(&mut self) -> Outcome<Vec<Row>> {
        let client = self.connection()?;
        let rows = client
            .query_typed(&format!("FETCH {CHUNK} FROM everything"), &[])
            .await?;
        if rows.is_empty() {
            client.batch_execute("COMMIT").await?;
            self.connection = None;
        }
        Ok(rows)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // Still within its transaction, which ends with it.
        drop(self.connection.take().map(Object::take));
    }
}

/// The items of a cursor; of one over [`checked_columns`] only whole ones, so that no copy of
/// another passes for whole.
pub(super) fn items(cursor: Cursor, checked: bool) -> ItemStream {
    let rows = stream::try_unfold(cursor, |mut cursor: Cursor| async move {
        let rows = cursor.next().await?;
        let more =
            (!rows.is_empty()).then_some((stream::iter(rows).map(Ok::<Row, Failure>), cursor));
        Ok::<_, Failure>(more)
    });
    let item = move |row: &Row| match checked.then(|| wrong(row)).flatten() {
        Some(what) => {
            let place: i64 = row.try_get("place")?;
            let detail = format!(
                "the item at place {place} is damaged: {what}; `gallery check` names all such"
            );
            Err(Error::new(Kind::Io, detail).into())
        }
        None => record::stored_item(row),
    };
    rows.try_flatten().map(move |row| Ok(item(&row?)?)).boxed()
}

/// The columns that [`check`] reads.
pub(super) fn checked_columns() -> String {
    format!("{}, checksum, terms", record::columns(Parts::ALL))
}

/// Compares every row with its checksum, and their number with the gallery's.
pub(super) async fn check(mut cursor: Cursor) -> Outcome<CheckReport> {
    let mut report = CheckReport::default();
    let mut last_place = 0i64;
    loop {
        let rows = match cursor.next().await {
            Ok(rows) => rows,
            Err(failure) if failure.is_damage() => {
                let said = Error::from(failure);
                report.damage.push(format!(
                    "after place {last_place} nothing more can be read: {said}"
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
            report
                .damage
                .extend(wrong(row).map(|what| format!("the item at place {last_place}: {what}")));
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

/// What is wrong with a row.
fn wrong(row: &Row) -> Option<String> {
    let record = match Record::read(row) {
        Ok(record) => record,
        Err(failure) => return Some(Error::from(failure).to_string()),
    };
    if row.get::<_, i64>("checksum") != record.checksum() {
        return Some(format!(
            "{:?} is not as it was stored",
            String::from_utf8_lossy(record.id)
        ));
    }
    match record::item(row) {
        Ok(item) if terms(&item.metadata) == row.get::<_, Value>("terms") => None,
        Ok(item) => Some(format!(
            "{:?} is filtered by other metadata than it has",
            item.id.as_str()
        )),
        Err(failure) => Some(Error::from(failure).to_string()),
    }
}
