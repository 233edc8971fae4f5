//! A folder of galleries with an arbitrary database: opened, listed, checked, read and searched.
//!
//! LMDB itself is not fuzzed: an input is a list of entries that LMDB writes. An entry is the
//! number of a table, the length of its key, that of its value in two bytes, the key and the value.

#![no_main]

mod database;

use std::sync::LazyLock;

use dinoserve::gallery::{OpenMode, Parts, Search, open};
use futures_util::StreamExt;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

use self::database::{FOLDER, config};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime")
});

fuzz_target!(|input: &[u8]| {
    if fill(input).is_ok() {
        RUNTIME.block_on(use_folder());
    }
});

/// Puts the entries that LMDB accepts into an empty database.
fn fill(mut input: &[u8]) -> heed::Result<()> {
    database::write(|tables, txn| {
        while let [table, key_bytes, low, high, rest @ ..] = input {
            let key_bytes = usize::from(*key_bytes);
            let value_bytes = usize::from(u16::from_le_bytes([*low, *high]));
            let (key, rest) = rest.split_at(rest.len().min(key_bytes));
            let (value, rest) = rest.split_at(rest.len().min(value_bytes));
            let _ = tables[usize::from(*table) % tables.len()].put(txn, key, value);
            input = rest;
        }
        Ok(())
    })
}

async fn use_folder() {
    let location = FOLDER.to_str().expect("a plain path");
    let Ok(store) = open(location, &config(), OpenMode::Serve).await else {
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
