//! Features of the embedded store only: the approximate index, formats of vectors, the folder's
//! lock.

use std::{collections::BTreeSet, io::Write, path::Path, time::Duration};

use dinoserve::{
    error::Kind,
    gallery::{
        Binding, Gallery, GalleryConfig, GalleryName, ItemFilter, ItemId, Label, Metadata, NewItem,
        OpenMode, Parts, Search, VectorFormat, Written, open, set_vectors, write_snapshot,
    },
};
use futures_util::TryStreamExt;
use serde_json::json;

use crate::support::scratch;

const DIM: usize = 48;

fn binding() -> Binding {
    serde_json::from_value(json!({
        "model": "made up", "fingerprint": "f", "dim": DIM, "pooling": "cls", "layers": 1,
        "size": 224, "resize": "crop", "filter": "bicubic", "exif": true, "background": "white",
    }))
    .unwrap()
}

fn name() -> GalleryName {
    GalleryName::default()
}

/// Returns a reproducible direction near one of a few centers.
fn vector(number: u64) -> Vec<f32> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut vector: Vec<f32> = (0..DIM).map(|_| random()).collect();
    vector[(number % 16) as usize] += 4.0;
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|v| *v /= length);
    vector
}

fn item(number: u64) -> NewItem {
    NewItem {
        id: ItemId::new(format!("item {number}")).unwrap(),
        label: Some(Label::new(format!("class {}", number % 7)).unwrap()),
        metadata: Metadata::from_value(json!({"number": number})).unwrap(),
        vector: vector(number),
        features: None,
        thumbnail: None,
    }
}

async fn opened(folder: &Path, exact_up_to: usize, vectors: VectorFormat) -> Gallery {
    let config = GalleryConfig {
        vectors,
        exact_up_to,
        ..GalleryConfig::default()
    };
    open(folder.to_str().unwrap(), &config, OpenMode::Serve)
        .await
        .unwrap()
}

async fn put(gallery: &Gallery, numbers: impl IntoIterator<Item = u64>) {
    gallery
        .put(&name(), &binding(), numbers.into_iter().map(item).collect())
        .await
        .unwrap();
}

async fn found(
    gallery: &Gallery,
    vector: Vec<f32>,
    exact: bool,
    filter: Option<ItemFilter>,
) -> Vec<(String, f32)> {
    let search = Search {
        filter,
        exact,
        ..Search::new(vector, 10)
    };
    let neighbors = gallery.search(&name(), search).await.unwrap();
    neighbors
        .into_iter()
        .map(|neighbor| (neighbor.item.id.into(), neighbor.score))
        .collect()
}

async fn wait_until_indexed(gallery: &Gallery, count: u64) {
    for _ in 0..600 {
        if gallery.require_gallery(&name()).await.unwrap().indexed >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the index was not made");
}

async fn recall(gallery: &Gallery, filter: Option<&ItemFilter>) -> f64 {
    let mut hits = 0;
    for query in 1_000_000..1_000_040 {
        let truth: BTreeSet<String> = found(gallery, vector(query), true, filter.cloned())
            .await
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        let near = found(gallery, vector(query), false, filter.cloned()).await;
        assert_eq!((truth.len(), near.len()), (10, 10));
        assert!(near.is_sorted_by(|(_, a), (_, b)| a >= b));
        hits += near.iter().filter(|(id, _)| truth.contains(id)).count();
    }
    f64::from(hits as u32) / 400.0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_finds_nearly_all_and_survives_deletion_replacement_and_restart() {
    let folder = scratch("gallery-index");
    let gallery = opened(&folder, 500, VectorFormat::F32).await;
    for start in (0..6000).step_by(1000) {
        put(&gallery, start..start + 1000).await;
    }
    wait_until_indexed(&gallery, 6000).await;
    assert!(recall(&gallery, None).await >= 0.95);
    // About 5100 items pass the first filter and use the index; 860 pass the second and are
    // compared one by one.
    let most = ItemFilter::parse(
        &json!({"label": {"any": (0..6).map(|n| format!("class {n}")).collect::<Vec<_>>()}}),
    );
    assert!(recall(&gallery, Some(&most.unwrap())).await >= 0.95);

    // Stored, replaced and deleted items count at once, whatever the index holds.
    put(&gallery, [7_000_000]).await;
    assert_eq!(
        found(&gallery, vector(7_000_000), false, None).await[0].0,
        "item 7000000"
    );
    let replaced = NewItem {
        vector: vector(8_000_000),
        ..item(17)
    };
    gallery
        .put(&name(), &binding(), vec![replaced])
        .await
        .unwrap();
    assert_eq!(
        found(&gallery, vector(8_000_000), false, None).await[0].0,
        "item 17"
    );
    assert!(found(&gallery, vector(17), false, None).await[0].1 < 0.999);
    let ids = (0..6000)
        .step_by(2)
        .map(|number| ItemId::new(format!("item {number}")).unwrap())
        .collect();
    assert!(
        gallery
            .delete(&name(), ids)
            .await
            .unwrap()
            .into_iter()
            .all(|deleted| deleted)
    );
    let near = found(&gallery, vector(2), false, None).await;
    assert!(
        near.len() == 10
            && near
                .iter()
                .all(|(id, _)| id.ends_with(['1', '3', '5', '7', '9', '0'])),
        "{near:?}"
    );
    assert!(recall(&gallery, None).await >= 0.95);

    gallery.close().await;
    drop(gallery);
    let files = |folder: &Path| std::fs::read_dir(folder.join("index")).unwrap().count();
    assert_eq!(files(&folder), 2, "the index and its manifest");
    // An index of a gallery whose deletion was interrupted by a kill.
    for name in ["4711-9.usearch", "4711-8.lists", "4711.json"] {
        std::fs::write(folder.join("index").join(name), "left behind").unwrap();
    }
    let gallery = opened(&folder, 500, VectorFormat::F32).await;
    assert!(
        gallery.require_gallery(&name()).await.unwrap().indexed > 2500,
        "the index is read, not rebuilt"
    );
    assert_eq!(files(&folder), 2, "leftover files are removed");
    assert!(recall(&gallery, None).await >= 0.95);
    assert_eq!(
        found(&gallery, vector(8_000_000), false, None).await[0].0,
        "item 17"
    );
    gallery.close().await;
    drop(gallery);

    // A damaged index is detected and rebuilt.
    for entry in std::fs::read_dir(folder.join("index")).unwrap().flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "lists")
        {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(entry.path(), bytes).unwrap();
        }
    }
    let gallery = opened(&folder, 500, VectorFormat::F32).await;
    assert!(recall(&gallery, None).await >= 0.95);
    wait_until_indexed(&gallery, 3000).await;
    assert!(recall(&gallery, None).await >= 0.95);
    assert_eq!(
        gallery.check(&name()).await.unwrap().damage,
        Vec::<String>::new()
    );
}

/// Replacing an item invalidates its index entry; a search still returns `k` items before the index
/// has the new entry.
#[tokio::test(flavor = "multi_thread")]
async fn searches_return_all_items_while_items_are_replaced() {
    let folder = scratch("gallery-replaced");
    let gallery = opened(&folder, 100, VectorFormat::F32).await;
    put(&gallery, 0..2000).await;
    wait_until_indexed(&gallery, 2000).await;
    for round in 0..100 {
        let query = vector(1_000_000 + round);
        let near = found(&gallery, query.clone(), false, None).await;
        let away: Vec<f32> = query.iter().map(|value| -value).collect();
        let number = |id: &str| id.strip_prefix("item ").unwrap().parse().unwrap();
        let replaced: Vec<_> = near
            .iter()
            .map(|(id, _)| NewItem {
                vector: away.clone(),
                ..item(number(id))
            })
            .collect();
        gallery.put(&name(), &binding(), replaced).await.unwrap();
        for _ in 0..3 {
            let others = found(&gallery, query.clone(), false, None).await;
            assert_eq!(others.len(), 10, "round {round}");
            assert!(
                others
                    .iter()
                    .all(|(id, _)| near.iter().all(|(gone, _)| gone != id)),
                "round {round}"
            );
        }
        // Every round needs items nearby.
        put(&gallery, near.iter().map(|(id, _)| number(id))).await;
    }
}

/// Flips a bit in every occurrence of these bytes in the database file. Unused pages may hold them,
/// too.
fn damage(folder: &Path, bytes: &[u8]) {
    let path = folder.join("data.mdb");
    let mut file = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (0..=file.len() - bytes.len())
        .filter(|&at| file[at..].starts_with(bytes))
        .collect();
    assert!(!places.is_empty());
    places.iter().for_each(|&at| file[at] ^= 4);
    // In place, because the file may be mapped.
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all(&file)
        .unwrap();
}

fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_item_blocks_snapshots_until_it_is_replaced_or_deleted() {
    let folder = scratch("gallery-damaged-items");
    let gallery = opened(&folder, 1000, VectorFormat::F32).await;
    let id = |number: u64| ItemId::new(format!("item {number}")).unwrap();
    let snapshot =
        async |gallery: &Gallery| write_snapshot(gallery, &name(), tokio::io::sink()).await;
    put(&gallery, 1000..1020).await;
    gallery.close().await;
    drop(gallery);
    damage(&folder, &bytes_of(&vector(1003)));
    damage(&folder, b"{\"number\":1007}");
    damage(&folder, b"{\"number\":1008}");

    let gallery = opened(&folder, 1000, VectorFormat::F32).await;
    let report = gallery.check(&name()).await.unwrap();
    assert_eq!((report.items, report.damage.len()), (20, 3), "{report:?}");
    let rejected = snapshot(&gallery).await.unwrap_err();
    assert!(
        rejected
            .detail()
            .contains("the item \"item 1003\" is damaged"),
        "{rejected}"
    );
    put(&gallery, [1003]).await;
    let rejected = snapshot(&gallery).await.unwrap_err();
    assert!(
        rejected.detail().contains("the item at place 8 is damaged"),
        "{rejected}"
    );
    assert_eq!(
        gallery
            .put(&name(), &binding(), vec![item(1007)])
            .await
            .unwrap(),
        [Written::Replaced { place: 8 }]
    );
    assert_eq!(
        gallery.delete(&name(), vec![id(1008)]).await.unwrap(),
        [true]
    );
    assert_eq!(snapshot(&gallery).await.unwrap().items, 19);

    // Now with a store that has the vector in memory.
    damage(&folder, b"{\"number\":1011}");
    gallery
        .put(
            &name(),
            &binding(),
            vec![NewItem {
                vector: vector(5),
                ..item(1011)
            }],
        )
        .await
        .unwrap();
    assert_eq!(
        found(&gallery, vector(5), true, None).await[0].0,
        "item 1011"
    );
    assert!(
        found(&gallery, vector(1011), true, None).await[0].1 < 0.999,
        "the old vector is gone"
    );
    damage(&folder, b"{\"number\":1012}");
    assert_eq!(
        gallery.delete(&name(), vec![id(1012)]).await.unwrap(),
        [true]
    );
    assert!(found(&gallery, vector(1012), true, None).await[0].1 < 0.999);
    assert_eq!(snapshot(&gallery).await.unwrap().items, 18);
    assert_eq!(
        gallery.check(&name()).await.unwrap().damage,
        Vec::<String>::new()
    );
    assert_eq!(gallery.require_gallery(&name()).await.unwrap().items, 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_gallery_reads_have_a_limit() {
    let folder = scratch("gallery-streams");
    let gallery = opened(&folder, 1000, VectorFormat::F32).await;
    // More items than a reader prefetches.
    put(&gallery, 0..200).await;
    let mut open = Vec::new();
    let rejected = loop {
        match gallery.read(&name(), Parts::NONE).await {
            Ok(stream) => open.push(stream),
            Err(error) => break error,
        }
        assert!(open.len() < 100);
    };
    assert!(
        rejected.kind() == Kind::Overloaded
            && rejected.detail().contains("reading whole galleries"),
        "{rejected}"
    );
    open.pop();
    let all: Vec<_> = gallery
        .read(&name(), Parts::NONE)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(all.len(), 200);
    // Other operations go on.
    assert_eq!(found(&gallery, vector(3), false, None).await[0].0, "item 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_precision_changes_scores_in_the_fourth_digit() {
    let folder = scratch("gallery-f16");
    let gallery = opened(&folder, 100_000, VectorFormat::F16).await;
    put(&gallery, 0..1500).await;
    for query in [vector(3), vector(1_000_001)] {
        for (id, score) in found(&gallery, query.clone(), false, None).await {
            let number: u64 = id.strip_prefix("item ").unwrap().parse().unwrap();
            let dot: f32 = query.iter().zip(vector(number)).map(|(a, b)| a * b).sum();
            assert!((score - dot).abs() < 5e-4, "{id}: {score} and {dot}");
        }
    }
    let stored = gallery
        .require_item(
            &name(),
            &ItemId::new("item 3").unwrap(),
            Parts {
                vector: true,
                ..Parts::NONE
            },
        )
        .await
        .unwrap();
    let differs = stored
        .vector
        .iter()
        .zip(vector(3))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(differs > 0.0 && differs < 5e-4, "{differs}");
    // The gallery keeps its format when the configuration changes.
    gallery.close().await;
    drop(gallery);
    let gallery = opened(&folder, 100_000, VectorFormat::F32).await;
    assert_eq!(found(&gallery, vector(3), true, None).await[0].0, "item 3");
}

const FORMATS: [VectorFormat; 4] = [
    VectorFormat::F32,
    VectorFormat::F16,
    VectorFormat::I8,
    VectorFormat::B1,
];

/// Asserts that a gallery finds nearly all, with the scores of `vector`, by a scan or an index.
async fn assert_finds(gallery: &Gallery, context: &str) {
    let recall = recall(gallery, None).await;
    assert!(recall >= 0.95, "{context}: recall {recall}");
    let low = ItemFilter::parse(&json!({"metadata": {"number": {"lt": 200}}})).unwrap();
    for filter in [None, Some(low)] {
        let query = vector(1_000_003);
        for (id, score) in found(gallery, query.clone(), false, filter.clone()).await {
            let number: u64 = id.strip_prefix("item ").unwrap().parse().unwrap();
            assert!(filter.is_none() || number < 200, "{context}: {id}");
            let dot: f32 = query.iter().zip(vector(number)).map(|(a, b)| a * b).sum();
            assert!(
                (score - dot).abs() < 5e-4,
                "{context}: {id}: {score} and {dot}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_finds_nearly_all_while_items_come_and_go() {
    for vectors in FORMATS {
        for exact_up_to in [500, 100_000] {
            let context = format!("{vectors} up to {exact_up_to}");
            let folder = scratch(&format!("gallery-{vectors}-{exact_up_to}"));
            let gallery = opened(&folder, exact_up_to, vectors).await;
            // The first 1024 rows of one bit have no center yet.
            put(&gallery, 0..600).await;
            assert_finds(&gallery, &context).await;
            for start in (600..3000).step_by(300) {
                put(&gallery, start..start + 300).await;
            }
            assert_finds(&gallery, &context).await;
            let ids = |numbers: std::ops::Range<u64>| -> Vec<_> {
                numbers
                    .map(|n| ItemId::new(format!("item {n}")).unwrap())
                    .collect()
            };
            gallery.delete(&name(), ids(200..900)).await.unwrap();
            gallery.delete(&name(), ids(1100..1900)).await.unwrap();
            // Written again, after the chunks of what is left were joined.
            put(&gallery, 1500..1700).await;
            assert_finds(&gallery, &context).await;
            gallery.close().await;
            drop(gallery);
            let gallery = opened(&folder, exact_up_to, VectorFormat::F32).await;
            let info = gallery.require_gallery(&name()).await.unwrap();
            assert_eq!((info.vectors, info.items), (vectors, 1700));
            assert_finds(&gallery, &context).await;
            gallery.close().await;
        }
    }
}

/// Returns directions of the width of a model, which differ in twenty ways and a little noise, so
/// that a search has many nearly as near.
fn wide(count: usize) -> Vec<Vec<f32>> {
    const WIDTH: usize = 384;
    let mut random = fastrand::Rng::with_seed(384);
    let mut normal = move || (0..12).map(|_| random.f32()).sum::<f32>() - 6.0;
    let ways: Vec<Vec<f32>> = (0..20)
        .map(|_| (0..WIDTH).map(|_| normal()).collect())
        .collect();
    let mut one = || {
        let mut vector: Vec<f32> = (0..WIDTH).map(|_| 0.5 * normal()).collect();
        for way in &ways {
            let share = normal();
            vector
                .iter_mut()
                .zip(way)
                .for_each(|(v, w)| *v += share * w);
        }
        let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector.into_iter().map(|v| v / length).collect()
    };
    (0..count).map(|_| one()).collect()
}

/// The narrow vectors of the other tests are all rescored, so that only wide ones show what the
/// codes are worth.
#[tokio::test(flavor = "multi_thread")]
async fn codes_of_wide_vectors_choose_the_nearest() {
    let (items, queries) = (4000, 30);
    let mut vectors = wide(items + queries);
    let asked = vectors.split_off(items);
    let binding = Binding {
        dim: vectors[0].len(),
        ..binding()
    };
    let truth: Vec<BTreeSet<String>> = asked
        .iter()
        .map(|query| {
            let score = |row: &Vec<f32>| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
            let mut rows: Vec<(f32, usize)> = vectors.iter().map(score).zip(0..).collect();
            rows.sort_by(|a, b| b.0.total_cmp(&a.0));
            let nearest = rows[..10].iter();
            nearest.map(|(_, row)| format!("item {row}")).collect()
        })
        .collect();
    for (format, least) in [
        (VectorFormat::F32, 1.0),
        (VectorFormat::F16, 1.0),
        (VectorFormat::I8, 1.0),
        (VectorFormat::B1, 0.97),
    ] {
        for exact_up_to in [500, 100_000] {
            let folder = scratch(&format!("gallery-wide-{format}-{exact_up_to}"));
            let gallery = opened(&folder, exact_up_to, format).await;
            let rows = vectors.iter().zip(0..).map(|(vector, number)| NewItem {
                vector: vector.clone(),
                ..item(number)
            });
            gallery
                .put(&name(), &binding, rows.collect())
                .await
                .unwrap();
            if exact_up_to == 500 {
                wait_until_indexed(&gallery, items as u64).await;
            }
            let mut hits = 0;
            for (query, truth) in asked.iter().zip(&truth) {
                let near = found(&gallery, query.clone(), false, None).await;
                hits += near.iter().filter(|(id, _)| truth.contains(id)).count();
            }
            let recall = hits as f64 / (10 * queries) as f64;
            let least = if exact_up_to == 500 { 0.95 } else { least };
            assert!(recall >= least, "{format} up to {exact_up_to}: {recall}");
            gallery.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_is_converted_in_place_and_back() {
    let folder = scratch("gallery-converted");
    let location = folder.to_str().unwrap().to_owned();
    let convert = async |gallery: &GalleryName, vectors: VectorFormat| {
        set_vectors(&location, &GalleryConfig::default(), gallery, vectors).await
    };
    let missing = convert(&name(), VectorFormat::B1).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert!(!folder.join("data.mdb").exists(), "nothing is created");
    let gallery = opened(&folder, 100_000, VectorFormat::F32).await;
    put(&gallery, 0..1500).await;
    let before = found(&gallery, vector(1_000_001), true, None).await;
    let served = convert(&name(), VectorFormat::B1).await.unwrap_err();
    assert_eq!(served.kind(), Kind::Unavailable);
    gallery.close().await;
    drop(gallery);
    let other = GalleryName::new("other").unwrap();
    let unknown = convert(&other, VectorFormat::B1).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);

    let mut from = VectorFormat::F32;
    for (round, to) in (0..).zip([
        VectorFormat::B1,
        VectorFormat::F16,
        VectorFormat::I8,
        VectorFormat::F32,
    ]) {
        assert_eq!(convert(&name(), to).await.unwrap(), from);
        from = to;
        let gallery = opened(&folder, 100_000, VectorFormat::F32).await;
        assert_eq!(gallery.require_gallery(&name()).await.unwrap().vectors, to);
        // Vectors that were stored before are as they were, to the last bit.
        assert_eq!(found(&gallery, vector(1_000_001), true, None).await, before);
        let near = found(&gallery, vector(1_000_001), false, None).await;
        assert_eq!(near, before, "{to}");
        // New ones, far away, are written in the new format.
        let opposite = vector(1_000_001).iter().map(|value| -value).collect();
        let new = NewItem {
            vector: opposite,
            ..item(5000 + round)
        };
        gallery.put(&name(), &binding(), vec![new]).await.unwrap();
        let report = gallery.check(&name()).await.unwrap();
        assert_eq!((report.items, report.damage.len()), (1501 + round, 0));
        gallery.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_served_by_one_process_and_read_by_many() {
    let folder = scratch("gallery-lock");
    let gallery = opened(&folder, 1000, VectorFormat::F32).await;
    put(&gallery, 0..10).await;
    let location = folder.to_str().unwrap();
    let second = open(location, &GalleryConfig::default(), OpenMode::Serve)
        .await
        .unwrap_err();
    assert!(
        second.kind() == Kind::Unavailable
            && second.detail().contains("is open in another process"),
        "{second}"
    );
    let nothing = scratch("gallery-none");
    let nothing = open(
        nothing.to_str().unwrap(),
        &GalleryConfig::default(),
        OpenMode::Read,
    )
    .await
    .unwrap_err();
    assert_eq!(nothing.kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_at_its_size_limit_rejects_writes_and_goes_on() {
    let folder = scratch("gallery-size");
    let config = GalleryConfig {
        max_bytes: 2 << 20,
        ..GalleryConfig::default()
    };
    let gallery = open(folder.to_str().unwrap(), &config, OpenMode::Serve)
        .await
        .unwrap();
    let mut stored = 0;
    let rejected = loop {
        match gallery
            .put(
                &name(),
                &binding(),
                (stored..stored + 50).map(item).collect(),
            )
            .await
        {
            Ok(_) => stored += 50,
            Err(error) => break error,
        }
    };
    assert_eq!(rejected.kind(), Kind::StorageFull);
    assert_eq!(rejected.limit().unwrap().flag, "--gallery-max-bytes");
    assert!(stored >= 1000, "{stored}");
    assert_eq!(
        gallery.require_gallery(&name()).await.unwrap().items,
        stored
    );
    assert_eq!(
        found(&gallery, vector(stored - 1), false, None).await[0].0,
        format!("item {}", stored - 1)
    );
    // Deleting needs space, too, which is reserved.
    for number in 0..200 {
        let deleted = gallery
            .delete(
                &name(),
                vec![ItemId::new(format!("item {number}")).unwrap()],
            )
            .await
            .unwrap();
        assert_eq!(deleted, [true]);
    }
    put(&gallery, [9_000_000]).await;
    assert_eq!(
        found(&gallery, vector(9_000_000), false, None).await[0].0,
        "item 9000000"
    );
    assert_eq!(
        gallery.check(&name()).await.unwrap().damage,
        Vec::<String>::new()
    );
}
