//! Snapshots: a restored gallery is the same, and a damaged file restores nothing.

use std::path::Path;

use dinoserve::{
    error::{Error, Kind},
    gallery::{
        self, Binding, Gallery, GalleryConfig, GalleryName, ItemId, Label, Metadata, NewItem,
        OpenMode, SnapshotSummary, restore_snapshot, verify_snapshot, write_snapshot,
    },
    model::ModelId,
};
use tokio::io::AsyncWriteExt;

use crate::support::{
    items::{binding, item, read_all, version_of},
    postgres::Postgres,
    scratch,
};

async fn open(folder: &Path) -> Gallery {
    gallery::open(
        folder.to_str().unwrap(),
        &GalleryConfig::default(),
        OpenMode::Serve,
    )
    .await
    .unwrap()
}

async fn store(name: &str) -> Gallery {
    open(&scratch(name)).await
}

fn named(name: &str) -> GalleryName {
    GalleryName::new(name).unwrap()
}

async fn snapshot(store: &Gallery, name: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let summary = write_snapshot(store, &named(name), &mut file)
        .await
        .unwrap();
    assert_eq!(summary.bytes, file.len() as u64);
    assert_eq!(verify_snapshot(file.as_slice()).await.unwrap(), summary);
    file
}

async fn restore(store: &Gallery, name: &str, file: &[u8]) -> Result<SnapshotSummary, Error> {
    restore_snapshot(store, &named(name), file).await
}

async fn names(store: &Gallery) -> Vec<String> {
    store
        .galleries()
        .await
        .unwrap()
        .into_iter()
        .map(|gallery| gallery.name.to_string())
        .collect()
}

async fn put(store: &Gallery, name: &str, ids: impl Iterator<Item = usize>, version: u64) {
    let items = ids.map(|id| item(&format!("id {id}"), version)).collect();
    store.put(&named(name), &binding(), items).await.unwrap();
}

#[tokio::test]
async fn a_restored_snapshot_is_the_same_gallery() {
    let from = store("snapshot-from").await;
    let to = store("snapshot-to").await;
    put(&from, "default", 0..1200, 1).await;
    // Replaced items keep their place; a deleted item that is stored again comes last.
    put(&from, "default", 300..400, 2).await;
    let gone = |id: usize| ItemId::new(format!("id {id}")).unwrap();
    from.delete(&named("default"), (0..10).map(gone).collect())
        .await
        .unwrap();
    put(&from, "default", 5..6, 3).await;
    // Texts and numbers that an inexact parser would change.
    let metadata = concat!(
        r#"{"z":1,"a":[0.1,1e+300,-0.0,3.0,9007199254740993,5e-324,0.30000000000000004],"#,
        r#""é\"\\":{"👍":null},"":""}"#,
    );
    let odd = |id: &str| NewItem {
        id: ItemId::new(id).unwrap(),
        label: Some(Label::new("label\n\u{1}/👍").unwrap()),
        metadata: Metadata::parse(metadata).unwrap(),
        features: None,
        thumbnail: None,
        ..item("another", 4)
    };
    let odd = vec![odd("/"), odd(" \u{0}\u{7f}"), odd(&"ü".repeat(256))];
    from.put(&named("default"), &binding(), odd).await.unwrap();

    let file = snapshot(&from, "default").await;
    let summary = restore(&to, "copy", &file).await.unwrap();
    assert_eq!(
        summary,
        SnapshotSummary {
            items: 1194,
            bytes: file.len() as u64
        }
    );
    assert_eq!(names(&to).await, ["copy"]);
    assert_eq!(
        to.require_gallery(&named("copy")).await.unwrap().binding,
        binding()
    );
    let stream = |store: Gallery, name: GalleryName| async move {
        use futures_util::TryStreamExt;
        let items = store.read(&name, gallery::Parts::ALL).await.unwrap();
        items.try_collect::<Vec<_>>().await.unwrap()
    };
    let before = stream(from.clone(), named("default")).await;
    let after = stream(to.clone(), named("copy")).await;
    assert_eq!(before.len(), 1194);
    assert_eq!(before[1190].item.id.as_str(), "id 5");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (&before.item.id, &before.item.label),
            (&after.item.id, &after.item.label)
        );
        let text = |metadata: &Metadata| serde_json::to_string(metadata).unwrap();
        assert_eq!(text(&before.item.metadata), text(&after.item.metadata));
        let bits = |vector: &[f32]| {
            vector
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(&before.vector), bits(&after.vector));
        assert_eq!(
            before.features.as_deref().map(bits),
            after.features.as_deref().map(bits)
        );
        assert_eq!(before.thumbnail, after.thumbnail);
    }
    assert_eq!(
        serde_json::to_string(&after[1193].item.metadata).unwrap(),
        metadata
    );
    // Its snapshot is the same file.
    assert!(snapshot(&to, "copy").await == file);
}

#[tokio::test]
async fn a_snapshot_moves_a_gallery_into_a_database_and_back() {
    let Some(database) = Postgres::start("gallery_snapshot::a_snapshot_moves_a_gallery") else {
        return;
    };
    let folder = store("snapshot-move").await;
    put(&folder, "default", 0..700, 1).await;
    put(&folder, "default", 100..120, 2).await;
    let file = snapshot(&folder, "default").await;
    let config = GalleryConfig::default();
    let there = gallery::open(&database.url(), &config, OpenMode::Serve)
        .await
        .unwrap();
    restore(&there, "moved", &file).await.unwrap();
    assert_eq!(read_all(&there, &named("moved")).await.len(), 700);
    assert!(snapshot(&there, "moved").await == file);
    let rejected = restore(&there, "moved", &file[..file.len() - 40])
        .await
        .unwrap_err();
    assert_eq!(rejected.kind(), Kind::Malformed, "{rejected}");
    assert_eq!(names(&there).await, ["moved"]);
    restore(&folder, "back", &snapshot(&there, "moved").await)
        .await
        .unwrap();
    assert!(snapshot(&folder, "back").await == file);
    there.close().await;
}

#[tokio::test]
async fn a_restore_replaces_the_gallery() {
    let store = store("snapshot-replace").await;
    put(&store, "a", 0..20, 1).await;
    let file = snapshot(&store, "a").await;
    put(&store, "a", 10..30, 2).await;
    restore(&store, "a", &file).await.unwrap();
    let items = read_all(&store, &named("a")).await;
    assert!(items.len() == 20 && items.iter().all(|item| version_of(item) == 1));

    // Also a gallery of another binding, and also by an empty gallery.
    let other = Binding {
        model: ModelId {
            fingerprint: "another".into(),
            ..binding().model.clone()
        },
        dim: 3,
        ..binding()
    };
    let one = NewItem {
        vector: vec![1.0, 0.0, 0.0],
        ..item("x", 1)
    };
    store.put(&named("b"), &other, vec![one]).await.unwrap();
    restore(&store, "b", &file).await.unwrap();
    assert_eq!(read_all(&store, &named("b")).await.len(), 20);
    store.create(&named("empty"), &other).await.unwrap();
    let file = snapshot(&store, "empty").await;
    restore(&store, "b", &file).await.unwrap();
    let info = store.require_gallery(&named("b")).await.unwrap();
    assert_eq!((info.items, info.binding), (0, other));
    assert_eq!(names(&store).await, ["a", "b", "empty"]);
}

#[tokio::test]
async fn a_damaged_or_truncated_file_changes_nothing() {
    let store = store("snapshot-damaged").await;
    put(&store, "source", 0..4, 1).await;
    put(&store, "default", 0..3, 2).await;
    let file = snapshot(&store, "source").await;
    let before = snapshot(&store, "default").await;
    let assert_rejected = async |bytes: &[u8], expected: &str| {
        let rejected = restore(&store, "default", bytes).await.unwrap_err();
        assert_eq!(rejected.kind(), Kind::Malformed, "{rejected}");
        assert!(rejected.detail().contains(expected), "{rejected}");
        let rejected = verify_snapshot(bytes).await.unwrap_err();
        assert_eq!(rejected.kind(), Kind::Malformed, "{rejected}");
        assert!(snapshot(&store, "default").await == before, "{expected}");
        assert_eq!(names(&store).await, ["default", "source"], "{expected}");
    };
    for length in (0..file.len())
        .step_by(file.len() / 60)
        .chain(file.len() - 3..file.len())
    {
        assert_rejected(&file[..length], "it ends early").await;
    }
    for at in (0..file.len()).step_by(file.len() / 120) {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        assert_rejected(&flipped, "").await;
    }
    let edit = |at: usize, bytes: &[u8]| {
        let mut edited = file.clone();
        edited[at..at + bytes.len()].copy_from_slice(bytes);
        edited
    };
    assert_rejected(&edit(0, b"\x89PNG"), "this is not a snapshot of a gallery").await;
    assert_rejected(
        &edit(8, &[2]),
        "a snapshot of version 2; this program reads version 1",
    )
    .await;
    assert_rejected(&edit(12, &[0xff; 4]), "an item of 4294967295 bytes").await;
    assert_rejected(
        &edit(file.len() - 1, &[!file[file.len() - 1]]),
        "its checksum differs from its content",
    )
    .await;
    assert_rejected(&[&file[..], &[0]].concat(), "there are bytes after its end").await;
    restore(&store, "default", &file).await.unwrap();
    assert_eq!(read_all(&store, &named("default")).await.len(), 4);
}

#[tokio::test]
async fn a_snapshot_is_consistent_under_writes() {
    let store = store("snapshot-moment").await;
    put(&store, "default", 0..50, 0).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for version in 1.. {
                put(&store, "default", 0..50, version).await;
            }
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let file = snapshot(&store, "default").await;
        restore(&store, "copy", &file).await.unwrap();
        let items = read_all(&store, &named("copy")).await;
        assert_eq!(items.len(), 50);
        let version = version_of(&items[0]);
        assert!(
            items.iter().all(|item| version_of(item) == version),
            "all are of version {version}"
        );
        seen.insert(version);
    }
    assert!(seen.len() > 5, "it was written to meanwhile: {seen:?}");
    writer.abort();
}

#[tokio::test]
async fn an_aborted_restore_leaves_nothing() {
    let store = store("snapshot-half").await;
    put(&store, "source", 0..2000, 1).await;
    let file = snapshot(&store, "source").await;
    let half_way = || {
        let (mut feed, from) = tokio::io::duplex(1 << 16);
        let task_store = store.clone();
        let half = file[..file.len() / 2].to_vec();
        let restoring =
            tokio::spawn(
                async move { restore_snapshot(&task_store, &named("default"), from).await },
            );
        async move {
            feed.write_all(&half).await.unwrap();
            (feed, restoring)
        }
    };
    let left = async || store.staging_galleries().await.unwrap().len();

    // The client has disconnected.
    let (feed, restoring) = half_way().await;
    while left().await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    restoring.abort();
    assert!(restoring.await.unwrap_err().is_cancelled());
    for _ in 0..500 {
        if left().await == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(names(&store).await, ["source"]);
    drop(feed);

    // Another restore begins meanwhile, and fails.
    let (mut feed, first) = half_way().await;
    put(&store, "small", 0..2, 3).await;
    let small = snapshot(&store, "small").await;
    let rejected = restore(&store, "default", &small).await.unwrap_err();
    assert_eq!(rejected.kind(), Kind::Conflict, "{rejected}");
    feed.write_all(&file[file.len() / 2..]).await.unwrap();
    drop(feed);
    first.await.unwrap().unwrap();
    assert_eq!(names(&store).await, ["default", "small", "source"]);
    assert_eq!(read_all(&store, &named("default")).await.len(), 2000);
}
