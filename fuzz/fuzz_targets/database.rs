//! A folder of galleries whose database the input states.

use std::{path::PathBuf, sync::LazyLock};

use dinoserve::gallery::GalleryConfig;
use heed::{CommitOrAbort, Database, EnvOpenOptions, RwTxn, types::Bytes};

/// The tables of the store, in its order.
const TABLES: [&str; 9] = [
    "about",
    "galleries",
    "ids",
    "records",
    "vectors",
    "features",
    "thumbnails",
    "documents",
    "reserve",
];
const MAP_BYTES: u64 = 64 << 20;

/// `run.sh` points to a folder that it deletes afterward.
pub static FOLDER: LazyLock<PathBuf> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder").keep());

pub fn config() -> GalleryConfig {
    GalleryConfig {
        max_bytes: MAP_BYTES,
        ..GalleryConfig::default()
    }
}

/// Empties the database in [`FOLDER`], and fills it by `fill`, which gets the tables.
pub fn write(
    fill: impl FnOnce(&[Database<'static, Bytes, Bytes>], &mut RwTxn<'_>) -> heed::Result<()>,
) -> heed::Result<()> {
    let mut options = EnvOpenOptions::new();
    options
        .map_size(MAP_BYTES as usize)
        .max_dbs(TABLES.len() as u32);
    // SAFETY: the folder is new and used by this process only.
    let env = unsafe { options.open(&*FOLDER) }?;
    let made = env.create_databases_and_commit(env.write_txn()?, |databases, txn| {
        let tables = TABLES.map(|name| databases.create_database::<Bytes, Bytes>(txn, Some(name)));
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    let tables = made.commit().expect("the closure always commits");
    let tables = tables.into_iter().collect::<heed::Result<Vec<_>>>()?;
    let mut txn = env.write_txn()?;
    for table in &tables {
        table.clear(&mut txn)?;
    }
    tables[0].put(&mut txn, b"format", &1u32.to_le_bytes())?;
    fill(&tables, &mut txn)?;
    txn.commit()
}
