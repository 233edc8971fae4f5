//! A snapshot of a gallery: verified, restored into a folder, written again and restored again.
//!
//! The first byte says whether to correct the checksum at the end, so that the fuzzer gets past it;
//! the rest is the file.

#![no_main]

use std::sync::LazyLock;

use dinoserve::{
    error::Result,
    gallery::{
        Gallery, GalleryConfig, GalleryName, OpenMode, Parts, Search, SnapshotSummary, open,
        restore_snapshot, verify_snapshot, write_snapshot,
    },
};
use futures_util::TryStreamExt;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime")
});

/// `run.sh` points to a folder that it deletes afterward.
static STORE: LazyLock<Gallery> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let config = GalleryConfig {
        max_bytes: 256 << 20,
        ..GalleryConfig::default()
    };
    let location = folder.to_str().expect("a plain path");
    RUNTIME
        .block_on(open(location, &config, OpenMode::Serve))
        .expect("an empty folder opens")
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, file)) = input.split_first() else {
        return;
    };
    let file = if choice % 2 == 0 {
        file.to_vec()
    } else {
        with_valid_end(file)
    };
    // Outside of the runtime, because opening the store calls `block_on`.
    LazyLock::force(&STORE);
    RUNTIME.block_on(read(&file));
});

async fn read(file: &[u8]) {
    let verified = verify_snapshot(file).await;
    let restored = restore("first", file).await;
    let Ok(summary) = restored else { return };
    assert_eq!(verified.ok(), Some(summary), "a restored snapshot is valid");

    let written = write("first").await;
    let again = restore("second", &written)
        .await
        .expect("a written snapshot can be restored");
    assert_eq!(again.items, summary.items);
    assert_eq!(
        write("second").await,
        written,
        "a restored gallery is unchanged"
    );

    let name = GalleryName::new("second").expect("a name");
    let checked = STORE.check(&name).await.expect("the gallery can be read");
    assert_eq!((checked.items, checked.damage), (summary.items, Vec::new()));
    let items: Vec<_> = STORE
        .read(&name, Parts::ALL)
        .await
        .expect("the gallery exists")
        .try_collect()
        .await
        .expect("all items are intact");
    let Some(first) = items.first() else { return };
    let search = Search {
        exact: true,
        ..Search::new(first.vector.clone(), 3)
    };
    let found = STORE
        .search(&name, search)
        .await
        .expect("a stored vector has the right width");
    assert_eq!(found.len(), items.len().min(3));
}

async fn restore(name: &str, file: &[u8]) -> Result<SnapshotSummary> {
    restore_snapshot(&STORE, &GalleryName::new(name).expect("a name"), file).await
}

async fn write(name: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let written = write_snapshot(&STORE, &GalleryName::new(name).expect("a name"), &mut file).await;
    written.expect("writing to memory succeeds");
    file
}

/// Returns the magic and the parts of a file with a matching count and checksum.
fn with_valid_end(file: &[u8]) -> Vec<u8> {
    let mut end = 12.min(file.len());
    let mut parts = 0u64;
    while let Some(length) = file[end..].first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let next = end.saturating_add(4).saturating_add(length);
        if length == 0 || next > file.len() {
            break;
        }
        end = next;
        parts += 1;
    }
    let mut valid = file[..end].to_vec();
    valid.extend([0; 4]);
    // The first part is the header.
    valid.extend(parts.saturating_sub(1).to_le_bytes());
    valid.extend_from_slice(&Sha256::digest(&valid));
    valid
}
