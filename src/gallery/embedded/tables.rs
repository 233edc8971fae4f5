//! The tables of the database.

use heed::{CommitOrAbort, Database, Env, WithoutTls, types::Bytes};

/// An LMDB database with keys and values of bytes.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// Defines [`Tables`]. A table has the name of its field.
macro_rules! tables {
    ($count:literal, $($(#[$documentation:meta])* $name:ident,)*) => {
        /// Number of tables.
        pub(super) const TABLE_COUNT: usize = $count;

        /// The tables. Item keys begin with the number of the gallery, so that a gallery is a
        /// range.
        #[derive(Debug, Clone, Copy)]
        pub(super) struct Tables {
            $($(#[$documentation])* pub(super) $name: Table,)*
        }

        impl Tables {
            fn new([$($name),*]: [Table; $count]) -> Self {
                Self { $($name),* }
            }
        }

        /// Calls `table` with the name of each table, in the order of the fields of [`Tables`].
        fn by_name<T>(
            mut table: impl FnMut(&'static str) -> heed::Result<T>,
        ) -> heed::Result<[T; $count]> {
            Ok([$(table(stringify!($name))?),*])
        }
    };
}

tables! {
    9,
    /// `format` and `next gallery`.
    about,
    /// Name → [`super::codec::GalleryRow`].
    galleries,
    /// Gallery and id → place.
    ids,
    /// Gallery and place → [`super::codec::ItemRecord`].
    records,
    /// Gallery and place → the vector.
    vectors,
    /// Gallery and place → the features for probes, in half precision.
    features,
    /// Gallery and place → a JPEG.
    thumbnails,
    /// Kind and name → a document.
    documents,
    /// Always empty; see [`super::environment::Environment::keep_room`].
    reserve,
}

impl Tables {
    /// Returns the tables that are keyed by gallery and place.
    pub(super) fn by_place(&self) -> [Table; 4] {
        [self.records, self.vectors, self.features, self.thumbnails]
    }

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
}
