//! A snapshot of a gallery: verified, restored into a folder, written again and restored again.
//!
//! The first byte says whether the checksum at the end is mended, so that what lies behind it is
//! reached; the rest is the file.

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
        mended(file)
    };
    // Not within the runtime, which opening it blocks.
    LazyLock::force(&STORE);
    RUNTIME.block_on(read(&file));
});

async fn read(file: &[u8]) {
    let verified = verify_snapshot(file).await;
    let restored = restore("first", file).await;
    let Ok(summary) = restored else { return };
    assert_eq!(verified.ok(), Some(summary), "what is restored is whole");

    let written = write("first").await;
    let again = restore("second", &written)
        .await
        .expect("what was written can be restored");
    assert_eq!(again.items, summary.items);
    assert_eq!(
        write("second").await,
        written,
        "a gallery comes back as it was"
    );

    let name = GalleryName::new("second").expect("a name");
    let checked = STORE.check(&name).await.expect("it can be read");
    assert_eq!((checked.items, checked.damage), (summary.items, Vec::new()));
    let items: Vec<_> = STORE
        .read(&name, Parts::ALL)
        .await
        .expect("it is there")
        .try_collect()
        .await
        .expect("all are whole");
    let Some(first) = items.first() else { return };
    let search = Search {
        exact: true,
        ..Search::new(first.vector.clone(), 3)
    };
    let found = STORE
        .search(&name, search)
        .await
        .expect("a vector of its own fits");
    assert_eq!(found.len(), items.len().min(3));
}

async fn restore(name: &str, file: &[u8]) -> Result<SnapshotSummary> {
    restore_snapshot(&STORE, &GalleryName::new(name).expect("a name"), file).await
}

async fn write(name: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let written = write_snapshot(&STORE, &GalleryName::new(name).expect("a name"), &mut file).await;
    written.expect("memory takes it");
    file
}

/// The magic and the parts of a file, with the end that fits them.
fn mended(file: &[u8]) -> Vec<u8> {
    let (mut end, mut parts) = (12.min(file.len()), 0u64);
    while let Some(length) = file[end..].first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let next = end.saturating_add(4).saturating_add(length);
        if length == 0 || next > file.len() {
            break;
        }
        (end, parts) = (next, parts + 1);
    }
    let mut mended = file[..end].to_vec();
    mended.extend([0; 4]);
    // The first part is the header.
    mended.extend(parts.saturating_sub(1).to_le_bytes());
    mended.extend_from_slice(&Sha256::digest(&mended));
    mended
}
