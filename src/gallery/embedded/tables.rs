//! The tables of the database.

use heed::{CommitOrAbort, Database, Env, WithoutTls, types::Bytes};

/// An LMDB database with keys and values of bytes.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// Number of tables.
pub(super) const TABLE_COUNT: usize = 9;

/// The tables. Item keys begin with the number of the gallery, so that a gallery is a range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// `format` and `next gallery`.
    pub(super) about: Table,
    /// Name → [`super::codec::GalleryRow`].
    pub(super) galleries: Table,
    /// Gallery and id → place.
    pub(super) ids: Table,
    /// Gallery and place → [`super::codec::ItemRecord`].
    pub(super) records: Table,
    /// Gallery and place → the vector.
    pub(super) vectors: Table,
    /// Gallery and place → the features for probes, in half precision.
    pub(super) features: Table,
    /// Gallery and place → a JPEG.
    pub(super) thumbnails: Table,
    /// Kind and name → a document.
    pub(super) documents: Table,
    /// Always empty; see [`super::environment::Environment::keep_room`].
    pub(super) reserve: Table,
}

impl Tables {
    /// Opens the tables, and creates missing ones. Returns `None` if the transaction was aborted.
    pub(super) fn create(env: &Env<WithoutTls>) -> heed::Result<Option<Self>> {
        let created = env.create_databases_and_commit(env.write_txn()?, |databases, txn| {
            let tables = by_name(|name| databases.create_database(txn, Some(name)))?;
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        Ok(created.commit().map(Self::new))
    }

    /// Opens the tables. Returns `None` if one is missing.
    pub(super) fn open(env: &Env<WithoutTls>) -> heed::Result<Option<Self>> {
        let opened = env.open_databases_and_commit(env.read_txn()?, |databases, txn| {
            let tables = by_name(|name| databases.open_database(txn, Some(name)))?;
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        let tables: Option<Vec<Table>> = opened.commit().into_iter().flatten().collect();
        Ok(tables
            .and_then(|tables| tables.try_into().ok())
            .map(Self::new))
    }

    fn new(tables: [Table; TABLE_COUNT]) -> Self {
        let [
            about,
            galleries,
            ids,
            records,
            vectors,
            features,
            thumbnails,
            documents,
            reserve,
        ] = tables;
        Self {
            about,
            galleries,
            ids,
            records,
            vectors,
            features,
            thumbnails,
            documents,
            reserve,
        }
    }
}

/// Calls `table` with the name of each table, in the order of the fields of [`Tables`].
fn by_name<T>(
    mut table: impl FnMut(&'static str) -> heed::Result<T>,
) -> heed::Result<[T; TABLE_COUNT]> {
    Ok([
        table("about")?,
        table("galleries")?,
        table("ids")?,
        table("records")?,
        table("vectors")?,
        table("features")?,
        table("thumbnails")?,
        table("documents")?,
        table("reserve")?,
    ])
}
