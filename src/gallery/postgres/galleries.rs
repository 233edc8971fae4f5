//! Changes of galleries as a whole.
//!
//! A writer holds the lock of a gallery's name until its change is committed. Therefore places
//! become visible in the order in which they are assigned, and a name does not move during a write.
//! Readers take no lock.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::error::SqlState;

use super::{
    connection::Connection,
    documents,
    failure::Outcome,
    gallery_row::{GalleryRow, MAX_PLACE, find, require},
    index_kind::IndexKind,
    schema,
};
use crate::{
    error::{Error, Kind, ResultExt},
    gallery::{Binding, DocumentKey, GalleryName, RestoreLock, VectorFormat, name_is_taken},
};

/// How new galleries are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) vectors: VectorFormat,
    pub(super) partitions: usize,
}

/// Maximum number of values that pgvector stores of a vector.
const MAX_DIM: usize = 16_000;

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
    layout: Layout,
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
    const INSERT: &str = "INSERT INTO galleries (name, binding, vectors, partitions)
                          VALUES ($1, $2, $3, $4) RETURNING number";
    let Layout {
        vectors,
        partitions,
    } = layout;
    let described = serde_json::to_string(binding).internal("encoding a binding")?;
    let created = transaction
        .query_one(
            INSERT,
            &[
                &name.as_str(),
                &described,
                &vectors.to_string(),
                &(partitions as i32),
            ],
        )
        .await?;
    let create_items = schema::create_items(created.get(0), binding.dim, partitions);
    transaction.batch_execute(&create_items).await?;
    require(transaction, name).await
}

/// Counts a write of a gallery, with the items that it added, which may be negative. The caller
/// holds its lock.
pub(super) async fn count_write(
    transaction: &Transaction<'_>,
    gallery: &GalleryRow,
    added: i64,
    last_place: i64,
) -> Outcome<()> {
    const COUNT: &str = "UPDATE galleries SET version = version + 1, items = items + $2,
                         last_place = $3 WHERE number = $1";
    let statement = transaction.prepare_cached(COUNT).await?;
    transaction
        .execute(&statement, &[&gallery.number, &added, &last_place])
        .await?;
    Ok(())
}

/// Sets the format of the vectors in the index of a gallery, and returns the one before. The caller
/// holds its lock.
pub(super) async fn set_vectors(
    transaction: &Transaction<'_>,
    name: &GalleryName,
    vectors: VectorFormat,
) -> Outcome<VectorFormat> {
    const SET: &str = "UPDATE galleries SET vectors = $2, version = version + 1 WHERE number = $1";
    let gallery = require(transaction, name).await?;
    let dim = gallery.info.binding.dim;
    if vectors != VectorFormat::F32 && IndexKind::of(vectors, dim).is_none() {
        let detail = format!("pgvector has no index of {dim} values as {vectors}; use b1");
        return Err(Error::option("vectors", detail).into());
    }
    transaction
        .execute(SET, &[&gallery.number, &vectors.to_string()])
        .await?;
    Ok(gallery.info.vectors)
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
