//! A full disk or a gallery at its size limit: the write that does not fit fails with the reason,
//! and nothing else is affected.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use dinoserve::{
    error::{Error, Kind},
    gallery::{self, Gallery, GalleryConfig, GalleryName, ItemId, OpenMode, Search},
    http::HttpConfig,
};
use serde_json::{Value, json};

use crate::support::{
    items::{binding, item, read_all},
    scratch,
    server::{Server, ok_json},
    skip, tiny,
};

/// A small file system of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = scratch("gallery-full");
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&folder)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(folder))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a failed test may still have the gallery open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn open(folder: &Path, config: &GalleryConfig) -> Gallery {
    gallery::open(folder.to_str().unwrap(), config, OpenMode::Serve)
        .await
        .unwrap()
}

async fn put(store: &Gallery, batch: usize) -> Result<(), Error> {
    let items = (0..16)
        .map(|index| item(&format!("{batch}/{index}"), 1))
        .collect();
    store
        .put(&GalleryName::default(), &binding(), items)
        .await
        .map(drop)
}

/// Stores batches from the number `from` until one does not fit. Returns its number and the error.
async fn fill(store: &Gallery, from: usize) -> (usize, Error) {
    for batch in from..from + 10_000 {
        let Err(error) = put(store, batch).await else {
            continue;
        };
        assert_eq!(error.kind(), Kind::StorageFull, "{error}");
        return (batch, error);
    }
    panic!("it was never full")
}

/// Checks that these batches and nothing else are stored, found by searches, and undamaged.
async fn assert_there(store: &Gallery, batches: std::ops::Range<usize>) {
    let name = GalleryName::default();
    let items = read_all(store, &name).await;
    let expected = batches
        .clone()
        .flat_map(|batch| (0..16).map(move |index| format!("{batch}/{index}")));
    assert!(
        items
            .iter()
            .map(|item| item.item.id.as_str().to_owned())
            .eq(expected),
        "{} items",
        items.len()
    );
    let last = items.last().unwrap();
    let search = Search::new(last.vector.clone(), 1);
    assert_eq!(
        store.search(&name, search).await.unwrap()[0].item,
        last.item
    );
    let report = store.check(&name).await.unwrap();
    assert_eq!(
        (report.items, report.damage),
        (items.len() as u64, Vec::new())
    );
}

async fn delete(store: &Gallery, batches: std::ops::Range<usize>) {
    for batch in batches {
        let ids = (0..16)
            .map(|index| ItemId::new(format!("{batch}/{index}")).unwrap())
            .collect();
        let deleted = store.delete(&GalleryName::default(), ids).await.unwrap();
        assert_eq!(deleted, [true; 16]);
    }
}

async fn put_over_http(server: &Server, id: usize) -> reqwest::Response {
    let vector: Vec<f32> = (0..64).map(|d| ((id * 64 + d) as f32).sin()).collect();
    let item = json!({"vector": vector, "metadata": {"n": id}});
    server
        .put(&format!("/v1/gallery/{id}?gallery=web"))
        .json(&item)
        .send()
        .await
        .unwrap()
}

/// Stores items from number 1 until one does not fit. Returns how many fit, and the problem.
async fn fill_over_http(server: &Server) -> (usize, Value) {
    for id in 1..10_000 {
        let answer = put_over_http(server, id).await;
        if !answer.status().is_success() {
            return (id, answer.json().await.unwrap());
        }
    }
    panic!("it was never full")
}

#[tokio::test]
async fn on_a_full_disk_writes_fail_and_reads_go_on() {
    let Some(disk) = SmallDisk::mount("4m") else {
        return skip("gallery_full::on_a_full_disk: needs root to mount a small file system");
    };
    std::fs::write(disk.ballast(), vec![1; 1 << 20]).unwrap();
    let folder = disk.0.join("gallery");
    let store = open(&folder, &GalleryConfig::default()).await;
    let server = Server::start_on(
        store.clone(),
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
    )
    .await;
    assert_eq!(put_over_http(&server, 0).await.status(), 201);
    let mut full = 0;
    for _ in 0..3 {
        // Pages that a reader held may be free now, so a little more may fit.
        full = fill(&store, full).await.0;
        assert!(full > 5, "something fitted before");
        assert_there(&store, 0..full).await;
    }
    let (stored, problem) = fill_over_http(&server).await;
    assert_eq!(
        (problem["status"].as_u64(), problem["code"].as_str()),
        (Some(507), Some("storage_full")),
        "{problem}"
    );
    assert_eq!(
        problem["detail"],
        "the disk under the gallery is full; nothing was written"
    );
    for id in (0..stored).step_by(10) {
        assert_eq!(
            ok_json(server.get(&format!("/v1/gallery/{id}?gallery=web"))).await["metadata"]["n"],
            id
        );
    }
    let found = ok_json(
        server
            .post("/v1/knn?gallery=web&k=100")
            .json(&json!({"vector": vec![1; 64]})),
    )
    .await;
    assert_eq!(
        found["neighbors"].as_array().unwrap().len(),
        stored.min(100)
    );
    server.stopped().await;

    // With free space writes go on, without a restart.
    std::fs::remove_file(disk.ballast()).unwrap();
    put(&store, full).await.unwrap();
    assert_there(&store, 0..full + 1).await;

    // Full again, until items are deleted.
    let (end, _) = fill(&store, full + 1).await;
    delete(&store, 0..5).await;
    put(&store, end).await.unwrap();
    assert_there(&store, 5..end + 1).await;

    store.close().await;
    drop(store);
    let store = open(&folder, &GalleryConfig::default()).await;
    assert_there(&store, 5..end + 1).await;
    store.close().await;
}

#[tokio::test]
async fn the_size_limit_of_a_gallery_acts_like_a_full_disk() {
    let folder = scratch("gallery-limit");
    let config = GalleryConfig {
        max_bytes: 3 << 20,
        ..GalleryConfig::default()
    };
    let store = open(&folder, &config).await;
    let (full, error) = fill(&store, 0).await;
    assert!(full > 5, "something fitted before");
    assert_eq!(
        error.limit().map(|limit| (limit.value, limit.flag)),
        Some((3 << 20, "--gallery-max-bytes")),
        "{error}"
    );
    assert_there(&store, 0..full).await;
    delete(&store, 0..5).await;
    put(&store, full).await.unwrap();
    assert_there(&store, 5..full + 1).await;
    store.close().await;
    drop(store);

    let store = open(
        &folder,
        &GalleryConfig {
            max_bytes: 8 << 20,
            ..config
        },
    )
    .await;
    put(&store, full + 1).await.unwrap();
    assert_there(&store, 5..full + 2).await;
    store.close().await;
}
