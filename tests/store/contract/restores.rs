//! Restores: one at a time for a gallery, invisible until they are complete, and only of files that
//! a model can have made.

use std::time::Duration;

use dinoserve::{
    error::{Error, Kind},
    features::pool::Pooling,
    gallery::{
        Binding, Gallery, GalleryName, ItemId, Parts, Search, SnapshotSummary, restore_snapshot,
        write_snapshot,
    },
};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, runtime::Runtime};

use super::{Place, Random, binding, full, name, over_both_stores, read_all};

over_both_stores!(
    a_gallery_is_restored_by_one_at_a_time,
    interrupted_restores_are_removed_when_the_store_opens,
    impossible_snapshots_are_refused_with_the_reason,
    impossible_descriptions_in_a_store_are_refused_with_the_reason,
);

const DIM: usize = 4;

async fn fill(store: &Gallery, gallery: &str, count: usize) {
    let mut random = Random(60);
    let items = (0..count)
        .map(|n| full(&n.to_string(), "l", "{}", random.direction(DIM)))
        .collect();
    store
        .put(&name(gallery), &binding(DIM), items)
        .await
        .unwrap();
}

async fn snapshot(store: &Gallery, gallery: &str) -> Vec<u8> {
    let mut file = Vec::new();
    write_snapshot(store, &name(gallery), &mut file)
        .await
        .unwrap();
    file
}

async fn names(store: &Gallery) -> Vec<String> {
    let galleries = store.galleries().await.unwrap().into_iter();
    galleries.map(|gallery| gallery.name.to_string()).collect()
}

async fn staging(store: &Gallery, count: usize) {
    for _ in 0..1000 {
        if store.staging_galleries().await.unwrap().len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there are not {count} staging galleries");
}

async fn a_gallery_is_restored_by_one_at_a_time(place: &Place) {
    let store = place.open().await;
    fill(&store, "source", 600).await;
    let file = snapshot(&store, "source").await;
    let restore = |gallery: &'static str, file: Vec<u8>| {
        let store = store.clone();
        tokio::spawn(async move { restore_snapshot(&store, &name(gallery), &*file).await })
    };

    let (mut feed, from) = tokio::io::duplex(1 << 16);
    let reading = store.clone();
    let first = tokio::spawn(async move { restore_snapshot(&reading, &name("a"), from).await });
    feed.write_all(&file[..file.len() / 2]).await.unwrap();
    staging(&store, 1).await;
    assert_eq!(names(&store).await, ["source"], "it is not listed");
    let second = restore("a", file.clone()).await.unwrap().unwrap_err();
    assert_eq!(second.kind(), Kind::Conflict, "{second}");
    let expected = "the gallery `a` is being restored already; wait for its end";
    assert_eq!(second.detail(), expected);
    // Other galleries can be restored meanwhile.
    assert_eq!(
        restore("b", file.clone()).await.unwrap().unwrap().items,
        600
    );
    feed.write_all(&file[file.len() / 2..]).await.unwrap();
    drop(feed);
    assert_eq!(first.await.unwrap().unwrap().items, 600);
    staging(&store, 0).await;

    let mut restored = 0;
    for _ in 0..10 {
        let both = [restore("a", file.clone()), restore("a", file.clone())];
        for outcome in both {
            match outcome.await.unwrap() {
                Ok(summary) => {
                    assert_eq!(summary.items, 600);
                    restored += 1;
                }
                Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
            }
        }
        assert_eq!(read_all(&store, &name("a"), Parts::NONE).await.len(), 600);
        assert_eq!(names(&store).await, ["a", "b", "source"]);
    }
    assert!(restored >= 10, "{restored}");
    staging(&store, 0).await;
}

async fn interrupted_restores_are_removed_when_the_store_opens(place: &Place) {
    let store = place.open().await;
    fill(&store, "source", 300).await;
    let file = snapshot(&store, "source").await;
    // A runtime that ends under a restore leaves what a killed process leaves.
    let killed = Runtime::new().unwrap();
    let (mut feed, from) = tokio::io::duplex(1 << 16);
    let task = store.clone();
    killed.spawn(async move { restore_snapshot(&task, &name("a"), from).await });
    feed.write_all(&file[..file.len() / 2]).await.unwrap();
    staging(&store, 1).await;
    killed.shutdown_background();
    drop(feed);
    assert_eq!(names(&store).await, ["source"]);
    store.close().await;
    drop(store);
    let store = place.open().await;
    staging(&store, 0).await;
    assert_eq!(names(&store).await, ["source"]);
    let restored = restore_snapshot(&store, &name("a"), &*file).await.unwrap();
    assert_eq!(restored.items, 300);
}

#[test]
fn names_of_restores_are_reserved() {
    let error = GalleryName::new("restoring--0123456789abcdef-0123456789abcdef").unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidOption);
    assert!(error.detail().contains("is reserved"), "{error}");
    assert!(GalleryName::new("restoring").is_ok());
}

/// A record of a snapshot.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "3")]
    metadata: String,
    #[prost(float, repeated, tag = "4")]
    vector: Vec<f32>,
    #[prost(float, repeated, tag = "5")]
    features: Vec<f32>,
}

fn record(id: &str, vector: &[f32]) -> Record {
    Record {
        id: id.to_owned(),
        metadata: "{}".to_owned(),
        vector: vector.to_vec(),
        features: Vec::new(),
    }
}

/// Writes a file with a valid checksum.
fn file(binding: &Value, records: &[Record]) -> Vec<u8> {
    let mut file = b"DINOGLRY".to_vec();
    file.extend(1u32.to_le_bytes());
    let header = json!({"binding": binding}).to_string().into_bytes();
    for part in std::iter::once(header).chain(records.iter().map(Message::encode_to_vec)) {
        file.extend((part.len() as u32).to_le_bytes());
        file.extend(part);
    }
    file.extend(0u32.to_le_bytes());
    file.extend((records.len() as u64).to_le_bytes());
    let digest = Sha256::digest(&file);
    file.extend_from_slice(&digest);
    file
}

async fn restore(store: &Gallery, file: &[u8]) -> Result<SnapshotSummary, Error> {
    restore_snapshot(store, &name("target"), file).await
}

async fn impossible_snapshots_are_refused_with_the_reason(place: &Place) {
    let store = place.open().await;
    fill(&store, "target", 3).await;
    let good = serde_json::to_value(binding(DIM)).unwrap();
    let with = |members: &[(&str, Value)]| {
        let mut binding = good.clone();
        for (member, value) in members {
            binding[*member] = value.clone();
        }
        binding
    };
    let one = [1.0, 0.0, 0.0, 0.0];
    let mut files = Vec::new();
    for (members, reason) in [
        (vec![("layers", json!(1u64 << 40))], "a model has 1 to 4"),
        (
            vec![("layers", json!(5))],
            "`layers` is 5; a model has 1 to 4",
        ),
        (vec![("layers", json!(0))], "`layers` is 0"),
        (vec![("layers", json!(3))], "it is a multiple of 3"),
        (vec![("layers", json!(-1))], "its header"),
        (vec![("dim", json!(0))], "`dim` is 0"),
        (
            vec![("dim", json!(1u64 << 62))],
            "`dim` is 4611686018427387904",
        ),
        (
            vec![("dim", json!(1))],
            "has 4 values; the vectors of this gallery have 1",
        ),
        (
            vec![("dim", json!(3)), ("pooling", json!("cls_mean"))],
            "a multiple of 2",
        ),
        (vec![("pooling", json!("max"))], "its header"),
        (vec![("size", json!(0))], "`size` is 0"),
        (vec![("size", json!(1u64 << 40))], "`size` is 1099511627776"),
        (
            vec![("model", json!("m".repeat(1000)))],
            "at most 256 bytes",
        ),
        (vec![("fingerprint", json!("a\0b"))], "no NUL"),
    ] {
        files.push((
            file(&with(&members), &[record("a", &one)]),
            reason.to_owned(),
        ));
    }
    for (vector, reason) in [
        (vec![0.0; 4], "has length 0.0000"),
        (
            vec![2.0, 0.0, 0.0, 0.0],
            "has length 2.0000; the vectors of a gallery have length 1",
        ),
        (vec![0.5, 0.0, 0.0, 0.0], "has length 0.5000"),
        (vec![f32::NAN, 0.0, 0.0, 0.0], "has length NaN"),
        (vec![f32::INFINITY, 0.0, 0.0, 0.0], "has length inf"),
        (vec![1.0], "has 1 values"),
        (Vec::new(), "has 0 values"),
    ] {
        let records = [record("a", &one), record("b", &vector)];
        files.push((
            file(&good, &records),
            format!("item 1: option `vector`: {reason}"),
        ));
    }
    for features in [vec![1.0; 7], vec![1e9; 8], vec![f32::NAN; 8]] {
        let features = Record {
            features,
            ..record("a", &one)
        };
        files.push((file(&good, &[features]), "must be 8 numbers".to_owned()));
    }
    for id in [".", "..", ""] {
        files.push((
            file(&good, &[record(id, &one)]),
            "item 0: option `id`".to_owned(),
        ));
    }
    // Also far apart, in several transactions.
    let mut many: Vec<Record> = (0..600).map(|n| record(&n.to_string(), &one)).collect();
    many[1] = record("0", &one);
    files.push((
        file(&good, &many),
        "item 1 has the id of an earlier one".to_owned(),
    ));
    many[1] = record("1", &one);
    many[599] = record("3", &one);
    files.push((
        file(&good, &many),
        "item 599 has the id of an earlier one".to_owned(),
    ));

    for (file, reason) in files {
        let error = restore(&store, &file).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Malformed, "{reason}: {error}");
        assert!(error.detail().contains(&reason), "no {reason:?} in {error}");
        assert!(
            error.detail().starts_with("the snapshot is damaged: "),
            "{error}"
        );
        assert_eq!(
            store.require_gallery(&name("target")).await.unwrap().items,
            3
        );
        staging(&store, 0).await;
    }
    let good = file(&good, &[record("a", &one), record("b", &one)]);
    assert_eq!(restore(&store, &good).await.unwrap().items, 2);
    // A new item may not have such an id either; an old one can still be deleted.
    let dot = super::plain(".", one.to_vec());
    let error = store
        .put(&name("target"), &binding(DIM), vec![dot])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidOption, "{error}");
    let deleted = store
        .delete(&name("target"), vec![ItemId::new("..").unwrap()])
        .await;
    assert_eq!(deleted.unwrap(), [false]);
}

async fn impossible_descriptions_in_a_store_are_refused_with_the_reason(place: &Place) {
    let other = Binding {
        pooling: Pooling::Mean,
        ..binding(DIM)
    };
    for (from, to, reason) in [
        (
            "\"pooling\":\"mean\",\"layers\":1",
            "\"pooling\":\"mean\",\"layers\":7",
            "a model has 1 to 4",
        ),
        (
            "\"pooling\":\"mean\",\"layers\":1",
            "\"pooling\":\"mean\",\"layers\":3",
            "a multiple of 3",
        ),
        (
            "\"pooling\":\"mean\"",
            "\"pooling\":\"nope\"",
            "unknown variant",
        ),
    ] {
        let store = place.open().await;
        fill(&store, "good", 3).await;
        let item = super::plain("a", vec![1.0, 0.0, 0.0, 0.0]);
        store
            .put(&name("bad"), &other, vec![item.clone()])
            .await
            .unwrap();
        store.close().await;
        drop(store);
        place.edit_descriptions(from, to).await;

        let store = place.open().await;
        assert_eq!(
            names(&store).await,
            ["good"],
            "{to}: the others can be used"
        );
        assert_eq!(read_all(&store, &name("good"), Parts::ALL).await.len(), 3);
        let bad = name("bad");
        let search = Search::new(item.vector.clone(), 1);
        let errors = [
            store.gallery(&bad).await.unwrap_err(),
            store.get(&bad, &item.id, Parts::ALL).await.unwrap_err(),
            store.page(&bad, 0, 9, None).await.unwrap_err(),
            store.search(&bad, search).await.unwrap_err(),
            store
                .put(&bad, &other, vec![item.clone()])
                .await
                .unwrap_err(),
            store.delete(&bad, vec![item.id.clone()]).await.unwrap_err(),
            snapshot_error(&store, &bad).await,
        ];
        for error in errors {
            assert_eq!(error.kind(), Kind::Damaged, "{to}: {error}");
            let detail = error.detail();
            assert!(
                detail.contains("the gallery `bad` is damaged") && detail.contains(reason),
                "{detail}"
            );
        }
        assert!(store.remove(&bad).await.unwrap());
        store.put(&bad, &other, vec![item.clone()]).await.unwrap();
        assert_eq!(names(&store).await, ["bad", "good"]);
        assert!(store.remove(&bad).await.unwrap());
        store.close().await;
    }
}

async fn snapshot_error(store: &Gallery, gallery: &GalleryName) -> Error {
    write_snapshot(store, gallery, &mut Vec::new())
        .await
        .unwrap_err()
}
