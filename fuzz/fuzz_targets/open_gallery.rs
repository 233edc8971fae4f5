//! A folder of galleries with an arbitrary database: opened, listed, checked, read and searched.
//!
//! LMDB itself is not fuzzed: an input is a list of entries that LMDB writes. An entry is the
//! number of a table, the length of its key, that of its value in two bytes, the key and the value.

#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use dinoserve::gallery::{GalleryConfig, OpenMode, Parts, Search, open};
use futures_util::StreamExt;
use heed::{CommitOrAbort, EnvOpenOptions, types::Bytes};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

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

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime")
});
/// `run.sh` points to a folder that it deletes afterward.
static FOLDER: LazyLock<PathBuf> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder").keep());

fuzz_target!(|input: &[u8]| {
    if fill(input).is_ok() {
        RUNTIME.block_on(use_folder());
    }
});

/// Puts the entries that LMDB accepts into an empty database.
fn fill(mut input: &[u8]) -> heed::Result<()> {
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
    while let [table, key_bytes, low, high, rest @ ..] = input {
        let key_bytes = usize::from(*key_bytes);
        let value_bytes = usize::from(u16::from_le_bytes([*low, *high]));
        let (key, rest) = rest.split_at(rest.len().min(key_bytes));
        let (value, rest) = rest.split_at(rest.len().min(value_bytes));
        let _ = tables[usize::from(*table) % tables.len()].put(&mut txn, key, value);
        input = rest;
    }
    txn.commit()
}

async fn use_folder() {
    let config = GalleryConfig {
        max_bytes: MAP_BYTES,
        ..GalleryConfig::default()
    };
    let location = FOLDER.to_str().expect("a plain path");
    let Ok(store) = open(location, &config, OpenMode::Serve).await else {
        return;
    };
    for gallery in store.galleries().await.unwrap_or_default() {
        let name = &gallery.name;
        let _ = store.check(name).await;
        let _ = store.page(name, 0, 10, None).await;
        if let Ok(mut items) = store.read(name, Parts::ALL).await {
            while let Some(item) = items.next().await {
                let Ok(item) = item else { continue };
                let _ = store.get(name, &item.item.id, Parts::ALL).await;
                if item.vector.len() == gallery.binding.dim {
                    let search = Search {
                        exact: true,
                        ..Search::new(item.vector, 3)
                    };
                    let _ = store.search(name, search).await;
                }
                let _ = store.delete(name, vec![item.item.id]).await;
            }
        }
        let _ = store.remove(name).await;
    }
    store.close().await;
}
