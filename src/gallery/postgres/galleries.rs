//! The table of galleries. The row of a gallery has its number, and the number names its table.
//!
//! A writer holds the lock of a gallery's name until its change is committed. Therefore places
//! become visible in the order in which they are assigned, and a name does not move during a write.
//! Readers take no lock.

use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::{Row, error::SqlState};

use super::{connection::Connection, documents, failure::Outcome, schema};
use crate::{
    error::{Error, Kind, ResultExt},
    gallery::{
        Binding, DocumentKey, GalleryInfo, GalleryName, RestoreLock, VectorFormat, name_is_taken,
        no_gallery,
    },
};

/// A gallery as its row describes it.
pub(super) struct GalleryRow {
    pub(super) number: i64,
    pub(super) table: String,
    pub(super) last_place: i64,
    pub(super) info: GalleryInfo,
}

/// Columns of a [`GalleryRow`]. `indisvalid` is false during an index build and after one that
/// failed.
const COLUMNS: &str = "SELECT number, name, binding, items, last_place, EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('dinoserve.items_' || number || '_vector') AND indisvalid
    ) AS indexed, (
        SELECT atttypmod FROM pg_attribute
        WHERE attrelid = to_regclass('dinoserve.items_' || number) AND attname = 'vector'
    ) AS dim FROM galleries";

/// Maximum number of values that pgvector stores of a vector.
const MAX_DIM: usize = 16_000;

/// Maximum place of an item: far above any that can be written, and low enough for additions.
const MAX_PLACE: i64 = 1 << 62;

/// Fails if a gallery's last place would be above [`MAX_PLACE`], where it could not be read again.
pub(super) fn check_place(name: &GalleryName, last_place: i64) -> Outcome<()> {
    if last_place <= MAX_PLACE {
        return Ok(());
    }
    let detail = format!(
        "the gallery `{name}` is damaged: it has no numbers left for items; delete it, or restore \
         a snapshot of it"
    );
    Err(Error::damaged(detail).into())
}

fn gallery_row(row: &Row) -> Outcome<GalleryRow> {
    let number: i64 = row.get("number");
    let name: String = row.get("name");
    let damaged = |damage: &dyn std::fmt::Display| {
        let detail = format!(
            "the gallery `{name}` is damaged: {damage}; delete it, or restore a snapshot of it"
        );
        Error::damaged(detail)
    };
    let binding: Binding =
        serde_json::from_str(row.get("binding")).map_err(|error| damaged(&error))?;
    binding.check_possible().map_err(|error| damaged(&error))?;
    let columns: Option<i32> = row.get("dim");
    if columns.is_some_and(|columns| usize::try_from(columns) != Ok(binding.dim)) {
        return Err(damaged(&"its table holds vectors of another width").into());
    }
    let last_place: i64 = row.get("last_place");
    if !(0..=MAX_PLACE).contains(&last_place) {
        return Err(damaged(&"the number of its last place is out of range").into());
    }
    let items: i64 = row.get("items");
    if !(0..=last_place).contains(&items) {
        return Err(damaged(&"the number of its items is out of range").into());
    }
    let items = items.unsigned_abs();
    let indexed = if row.get("indexed") { items } else { 0 };
    Ok(GalleryRow {
        number,
        table: schema::items(number),
        last_place,
        info: GalleryInfo {
            number: number.unsigned_abs(),
            name: GalleryName::stored(name)?,
            binding,
            vectors: VectorFormat::F32,
            items,
            indexed,
        },
    })
}

pub(super) async fn find(
    client: &impl GenericClient,
    name: &GalleryName,
) -> Outcome<Option<GalleryRow>> {
    let query = format!("{COLUMNS} WHERE name = $1");
    let statement = client.prepare_cached(&query).await?;
    let row = client.query_opt(&statement, &[&name.as_str()]).await?;
    row.as_ref().map(gallery_row).transpose()
}

pub(super) async fn require(
    client: &impl GenericClient,
    name: &GalleryName,
) -> Outcome<GalleryRow> {
    Ok(find(client, name).await?.ok_or_else(|| no_gallery(name))?)
}

pub(super) async fn list(client: &Connection) -> Outcome<Vec<GalleryInfo>> {
    let query = format!("{COLUMNS} WHERE name IS NOT NULL ORDER BY name");
    let rows = client.query(&query, &[]).await?;
    // A damaged gallery must not hide the others.
    let usable = rows.iter().filter_map(|row| match gallery_row(row) {
        Ok(row) => Some(row.info),
        Err(failure) => {
            tracing::error!(error = %Error::from(failure), "a gallery cannot be used");
            None
        }
    });
    Ok(usable.filter(|info| !info.name.is_staging()).collect())
}

/// Returns the names of the galleries that are being restored.
pub(super) async fn staging(client: &Connection) -> Outcome<Vec<GalleryName>> {
    const STAGING: &str = "SELECT name FROM galleries WHERE starts_with(name, $1)";
    let prefix = &GalleryName::STAGING_PREFIX;
    let rows = client.query(STAGING, &[prefix]).await?;
    let names = rows
        .iter()
        .map(|row| Ok(GalleryName::stored(row.get::<_, String>(0))?));
    names.collect()
}

/// Locks names until the transaction ends. All writers lock in the same order.
pub(super) async fn lock(transaction: &Transaction<'_>, names: &[&GalleryName]) -> Outcome<()> {
    const LOCK: &str = "SELECT pg_advisory_xact_lock($1, $2)";
    let mut keys: Vec<i32> = names
        .iter()
        .map(|name| crc32fast::hash(name.as_str().as_bytes()).cast_signed())
        .collect();
    keys.sort_unstable();
    for key in keys {
        let lock = transaction.prepare_cached(LOCK).await?;
        transaction.execute(&lock, &[&schema::LOCKS, &key]).await?;
    }
    Ok(())
}

/// First key of the advisory locks of restores, `rest` in ASCII; the second is a hash of the
/// target.
const RESTORES: i32 = 0x7265_7374;

/// Locks the restores of a target, or returns `None` if they stay locked. The connection is taken
/// out of the pool, because closing it releases the lock. The database takes a moment to notice
/// that, so this waits.
pub(super) async fn lock_restore(
    connection: Connection,
    target: &str,
) -> Outcome<Option<RestoreLock>> {
    const LOCK: &str = "SELECT pg_advisory_lock($1, $2)";
    let client = Object::take(connection);
    client.batch_execute("SET lock_timeout = '1s'").await?;
    let key = crc32fast::hash(target.as_bytes()).cast_signed();
    match client.execute(LOCK, &[&RESTORES, &key]).await {
        Ok(_) => Ok(Some(RestoreLock::new(client))),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Looks up a gallery, or creates it if it does not exist. The caller holds its lock.
pub(super) async fn find_or_create(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    binding: &Binding,
) -> Outcome<GalleryRow> {
    if let Some(row) = find(transaction, name).await? {
        row.info.binding.check(name, binding)?;
        return Ok(row);
    }
    if binding.dim > MAX_DIM {
        let detail = format!(
            "the vectors have {} values; galleries in PostgreSQL hold vectors of up to {MAX_DIM}",
            binding.dim
        );
        return Err(Error::new(Kind::InvalidOption, detail).into());
    }
    const INSERT: &str = "INSERT INTO galleries (name, binding) VALUES ($1, $2) RETURNING number";
    let described = serde_json::to_string(binding).internal("encoding a binding")?;
    let created = transaction
        .query_one(INSERT, &[&name.as_str(), &described])
        .await?;
    let create_items = schema::create_items(created.get(0), binding.dim);
    transaction.batch_execute(&create_items).await?;
    require(transaction, name).await
}

/// Removes the name of a gallery, so that it is no longer found, and its documents, and returns
/// whether there was one. The caller holds its lock.
pub(super) async fn remove(transaction: &Transaction<'_>, name: &GalleryName) -> Outcome<bool> {
    const REMOVE: &str = "UPDATE galleries SET name = NULL WHERE name = $1";
    let removed = transaction.execute(REMOVE, &[&name.as_str()]).await?;
    for key in DocumentKey::of_gallery(name) {
        documents::remove(transaction, key).await?;
    }
    Ok(removed > 0)
}

/// Renames a gallery, and `replaces` the one that has the new name, or fails if there is one. The
/// caller holds the locks of both.
pub(super) async fn rename(
    transaction: &Transaction<'_>,
    from: &GalleryName,
    to: &GalleryName,
    replaces: bool,
) -> Outcome<()> {
    const RENAME: &str = "UPDATE galleries SET name = $2 WHERE number = $1";
    let row = require(transaction, from).await?;
    if !replaces && find(transaction, to).await?.is_some() {
        return Err(name_is_taken(to).into());
    }
    if from != to {
        remove(transaction, to).await?;
        transaction
            .execute(RENAME, &[&row.number, &to.as_str()])
            .await?;
        for key in DocumentKey::of_gallery(from) {
            documents::rename(transaction, key, to.as_str()).await?;
        }
    }
    Ok(())
}

/// Drops the tables of removed galleries. A table that is still being read is left for the next
/// cleanup.
pub(super) async fn drop_removed(connection: &mut Connection) -> Outcome<()> {
    let removed = connection
        .query("SELECT number FROM galleries WHERE name IS NULL", &[])
        .await?;
    for row in removed {
        let number: i64 = row.get(0);
        if let Err(failure) = drop_items(connection, number).await {
            let error = Error::from(failure);
            tracing::info!(number, %error, "the items of a removed gallery are dropped later");
        }
    }
    Ok(())
}

async fn drop_items(connection: &mut Connection, number: i64) -> Outcome<()> {
    const CLAIM: &str =
        "SELECT FROM galleries WHERE number = $1 AND name IS NULL FOR UPDATE SKIP LOCKED";
    const DELETE: &str = "DELETE FROM galleries WHERE number = $1";
    let transaction = connection.transaction().await?;
    if transaction.query_opt(CLAIM, &[&number]).await?.is_some() {
        let table = schema::items(number);
        let drop = format!("SET LOCAL lock_timeout = '2s'; DROP TABLE IF EXISTS {table}");
        transaction.batch_execute(&drop).await?;
        transaction.execute(DELETE, &[&number]).await?;
    }
    transaction.commit().await?;
    Ok(())
}
