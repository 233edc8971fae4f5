//! Which galleries there are. A gallery's row says its number, and the number its table.
//!
//! Whoever changes a gallery holds the lock of its name until the change is committed. So places
//! are given in the order in which they become visible, and names stand still while they are worked
//! with. Readers take no lock.

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::{
    connection::Connection,
    failure::{Failure, Outcome},
    schema,
};
use crate::{
    error::{Error, Kind},
    gallery::{Binding, GalleryInfo, GalleryName},
};

/// A gallery as its row tells it.
pub(super) struct Found {
    pub(super) number: i64,
    /// The table of its items.
    pub(super) table: String,
    pub(super) last_place: i64,
    pub(super) info: GalleryInfo,
}

/// `indisvalid` is false while the index is being built, and if that failed.
const COLUMNS: &str = "SELECT number, name, binding, items, last_place, EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('dinoserve.items_' || number || '_vector') AND indisvalid
    ) AS indexed FROM galleries";

fn found(row: &Row) -> Outcome<Found> {
    let (number, name): (i64, String) = (row.get("number"), row.get("name"));
    let binding: Binding = serde_json::from_str(row.get("binding")).map_err(|error| {
        Error::new(
            Kind::Io,
            format!("the database says of the gallery `{name}` what cannot be read: {error}"),
        )
    })?;
    let items = row.get::<_, i64>("items").unsigned_abs();
    let indexed = if row.get("indexed") { items } else { 0 };
    let info = GalleryInfo {
        name: GalleryName::new(name)?,
        binding,
        items,
        indexed,
    };
    Ok(Found {
        number,
        table: schema::items(number),
        last_place: row.get("last_place"),
        info,
    })
}

async fn look_up(client: &impl GenericClient, name: &GalleryName) -> Outcome<Option<Found>> {
    let statement = client
        .prepare_cached(&format!("{COLUMNS} WHERE name = $1"))
        .await?;
    client
        .query_opt(&statement, &[&name.as_str()])
        .await?
        .as_ref()
        .map(found)
        .transpose()
}

/// The gallery of that name.
pub(super) async fn find(client: &impl GenericClient, name: &GalleryName) -> Outcome<Found> {
    look_up(client, name).await?.ok_or_else(|| missing(name))
}

fn missing(name: &GalleryName) -> Failure {
    Error::new(
        Kind::NotFound,
        format!("there is no gallery `{name}`; see GET /v1/galleries"),
    )
    .into()
}

/// All galleries, by name.
pub(super) async fn list(client: &Connection) -> Outcome<Vec<GalleryInfo>> {
    let rows = client
        .query(
            &format!("{COLUMNS} WHERE name IS NOT NULL ORDER BY name"),
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(found(row)?.info)).collect()
}

/// Holds the locks of names until the transaction ends. Everyone takes them in the same order.
pub(super) async fn lock(transaction: &Transaction<'_>, names: &[&GalleryName]) -> Outcome<()> {
    let statement = transaction
        .prepare_cached("SELECT pg_advisory_xact_lock($1, $2)")
        .await?;
    let mut keys: Vec<i32> = names
        .iter()
        .map(|name| crc32fast::hash(name.as_str().as_bytes()).cast_signed())
        .collect();
    keys.sort_unstable();
    for key in keys {
        transaction
            .execute(&statement, &[&schema::LOCKS, &key])
            .await?;
    }
    Ok(())
}

/// The gallery of that name and binding, which is made if there is none. Its lock is held.
pub(super) async fn find_or_create(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    binding: &Binding,
) -> Outcome<Found> {
    if let Some(found) = look_up(transaction, name).await? {
        found.info.binding.check(name, binding)?;
        return Ok(found);
    }
    const INSERT: &str = "INSERT INTO galleries (name, binding) VALUES ($1, $2) RETURNING number";
    let described =
        serde_json::to_string(binding).map_err(|error| Error::internal(error.to_string()))?;
    let number: i64 = transaction
        .query_one(INSERT, &[&name.as_str(), &described])
        .await?
        .get(0);
    transaction
        .batch_execute(&schema::create_items(number, binding.dim))
        .await?;
    let info = GalleryInfo {
        name: name.clone(),
        binding: binding.clone(),
        items: 0,
        indexed: 0,
    };
    Ok(Found {
        number,
        table: schema::items(number),
        last_place: 0,
        info,
    })
}

/// Takes the name away, so that nobody finds the gallery any more. Its lock is held.
pub(super) async fn remove(transaction: &Transaction<'_>, name: &GalleryName) -> Outcome<()> {
    match transaction
        .execute(
            "UPDATE galleries SET name = NULL WHERE name = $1",
            &[&name.as_str()],
        )
        .await?
    {
        0 => Err(missing(name)),
        _ => Ok(()),
    }
}

/// Gives the gallery `from` the name `to` and takes it from the one that had it. The locks of both
/// are held.
pub(super) async fn rename(
    transaction: &Transaction<'_>,
    from: &GalleryName,
    to: &GalleryName,
) -> Outcome<()> {
    let found = find(transaction, from).await?;
    if from != to {
        transaction
            .execute(
                "UPDATE galleries SET name = NULL WHERE name = $1",
                &[&to.as_str()],
            )
            .await?;
        const RENAME: &str = "UPDATE galleries SET name = $2 WHERE number = $1";
        transaction
            .execute(RENAME, &[&found.number, &to.as_str()])
            .await?;
    }
    Ok(())
}

/// Drops the tables of galleries that were removed. One that is still being read stays for the next
/// time.
pub(super) async fn drop_removed(connection: &mut Connection) -> Outcome<()> {
    let removed = connection
        .query("SELECT number FROM galleries WHERE name IS NULL", &[])
        .await?;
    for row in removed {
        let number: i64 = row.get(0);
        if let Err(failure) = drop_items(connection, number).await {
            tracing::info!(number, error = %Error::from(failure), "the items of a removed gallery are dropped later");
        }
    }
    Ok(())
}

async fn drop_items(connection: &mut Connection, number: i64) -> Outcome<()> {
    const CLAIM: &str =
        "SELECT FROM galleries WHERE number = $1 AND name IS NULL FOR UPDATE SKIP LOCKED";
    let transaction = connection.transaction().await?;
    if transaction.query_opt(CLAIM, &[&number]).await?.is_some() {
        let table = schema::items(number);
        transaction
            .batch_execute(&format!(
                "SET LOCAL lock_timeout = '2s'; DROP TABLE IF EXISTS {table}"
            ))
            .await?;
        transaction
            .execute("DELETE FROM galleries WHERE number = $1", &[&number])
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
