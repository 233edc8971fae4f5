//! What large galleries in PostgreSQL need: kinds of indexes, partitions, writers together.

use std::time::Duration;

use dinoserve::{
    error::{Error, Kind},
    gallery::{
        self, Gallery, GalleryConfig, OpenMode, Search, VectorFormat, Written, restore_snapshot,
        set_vectors, write_snapshot,
    },
};

use super::{
    Place, Random, binding, name, plain,
    search::{recall, wait_for_index},
};

const DIM: usize = 384;

/// Returns points near a surface of few dimensions, like image features.
fn vectors(count: usize, random: &mut Random) -> Vec<Vec<f32>> {
    let axes: Vec<_> = (0..12).map(|_| random.direction(DIM)).collect();
    let mut point = || {
        let mut sum: Vec<f64> = random
            .direction(DIM)
            .iter()
            .map(|value| f64::from(*value) * 0.3)
            .collect();
        for (axis, weight) in axes.iter().zip(random.direction(axes.len())) {
            for (sum, value) in sum.iter_mut().zip(axis) {
                *sum += f64::from(value * weight);
            }
        }
        super::unit(&sum)
    };
    (0..count).map(|_| point()).collect()
}

/// Returns the names of the indexes over the vectors of a gallery that can be used.
async fn indexes(place: &Place) -> Vec<String> {
    const INDEXES: &str = "SELECT relname::text FROM pg_index
        JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam
        WHERE amname = 'hnsw' AND indisvalid ORDER BY 1";
    let client = place.server().connect().await;
    let rows = client.query(INDEXES, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until the statistics of the database have a scan of each index.
async fn assert_are_scanned(place: &Place, indexes: &[String]) {
    const SCANNED: &str = "SELECT count(*) FROM pg_stat_user_indexes
                           WHERE indexrelname = ANY($1) AND idx_scan > 0";
    let client = place.server().connect().await;
    for _ in 0..100 {
        let scanned: i64 = client.query_one(SCANNED, &[&indexes]).await.unwrap().get(0);
        if scanned as usize == indexes.len() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("searches do not use {indexes:?}");
}

/// Checks the recall and the scores of searches by the index.
async fn assert_searches(store: &Gallery, items: &[gallery::NewItem], why: &str) {
    let gallery = name("g");
    let mut of_all = 0.0;
    for item in items.iter().step_by(items.len() / 20) {
        let query = Search::new(item.vector.clone(), 10);
        let found = store.search(&gallery, query.clone()).await.unwrap();
        assert_eq!(found.len(), 10, "{why}");
        assert_eq!(found[0].item.id, item.id, "{why}");
        // Scores are those of the stored vectors, whatever is indexed.
        for near in &found {
            let other = items.iter().find(|item| item.id == near.item.id).unwrap();
            let pairs = item.vector.iter().zip(&other.vector);
            let score: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(near.score) - score).abs() < 1e-5, "{why}");
        }
        of_all += recall(&found, items, &query) / 20.0;
    }
    assert!(of_all > 0.95, "recall of {why}: {of_all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_is_converted_while_it_is_searched() {
    let Some(mut place) = Place::database("a_gallery_is_converted_while_it_is_searched") else {
        return;
    };
    place.config.exact_up_to = 100;
    place = place.in_partitions(3);
    let store = place.open().await;
    let mut random = Random(92);
    let vectors = vectors(3000, &mut random).into_iter().enumerate();
    let items: Vec<_> = vectors
        .map(|(n, vector)| plain(n.to_string(), vector))
        .collect();
    let gallery = name("g");
    for items in items.chunks(500) {
        let items = items.to_vec();
        store.put(&gallery, &binding(DIM), items).await.unwrap();
    }
    let query = Search::new(items[0].vector.clone(), 1);
    wait_for_index(&store, &gallery, &query).await;
    assert_searches(&store, &items, "f32").await;
    assert_are_scanned(&place, &indexes(&place).await).await;

    let mut before = VectorFormat::F32;
    for (format, kind) in [
        (VectorFormat::F16, "half"),
        (VectorFormat::B1, "bits"),
        (VectorFormat::F32, "vector"),
    ] {
        let config = GalleryConfig::default();
        let set = set_vectors(&place.location(), &config, &gallery, format).await;
        assert_eq!(set.unwrap(), before);
        before = format;
        let info = store.require_gallery(&gallery).await.unwrap();
        assert_eq!((info.vectors, info.indexed), (format, 3000));
        let expected: Vec<_> = (0..3)
            .map(|part| format!("items_1_{part}_{kind}"))
            .collect();
        for _ in 0..600 {
            assert_searches(&store, &items, "a conversion").await;
            if indexes(&place).await == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(indexes(&place).await, expected);
        assert_searches(&store, &items, kind).await;
        assert_are_scanned(&place, &expected).await;
    }
    let location = place.location();
    let error = set_vectors(&location, &place.config, &gallery, VectorFormat::I8).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidOption);
    assert!(error.detail().contains("f32, f16 or b1"), "{error}");
}

#[tokio::test]
async fn eight_bit_vectors_are_refused_by_name() {
    let config = GalleryConfig {
        vectors: VectorFormat::I8,
        ..GalleryConfig::default()
    };
    let opened = gallery::open("postgres://localhost/none", &config, OpenMode::Serve).await;
    let error = opened.expect_err("an error");
    assert_eq!(error.kind(), Kind::InvalidOption);
    assert!(error.detail().contains("gallery-vectors"), "{error}");
}

/// An index whose build ended in the middle is made again.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_build_of_an_index_is_repeated() {
    let Some(mut place) = Place::database("an_interrupted_build_of_an_index_is_repeated") else {
        return;
    };
    place.config.exact_up_to = 100;
    place = place.with_vectors(VectorFormat::F16);
    let store = place.open().await;
    let gallery = name("g");
    let mut random = Random(93);
    let items: Vec<_> = (0..400)
        .map(|n| plain(n.to_string(), random.direction(DIM)))
        .collect();
    store
        .put(&gallery, &binding(DIM), items.clone())
        .await
        .unwrap();
    let client = place.server().connect().await;
    let left_over = "CREATE INDEX items_1_half ON dinoserve.items_1
                     USING hnsw ((vector::dinoserve.halfvec(384)) dinoserve.halfvec_ip_ops)";
    client.batch_execute(left_over).await.unwrap();
    let invalid = "UPDATE pg_index SET indisvalid = false
                   WHERE indexrelid = 'dinoserve.items_1_half'::regclass";
    client.batch_execute(invalid).await.unwrap();
    assert_eq!(store.require_gallery(&gallery).await.unwrap().indexed, 0);
    wait_for_index(&store, &gallery, &Search::new(items[0].vector.clone(), 1)).await;
    assert_eq!(indexes(&place).await, ["items_1_half"]);
}

/// The lock of a gallery, as writers take it. It keeps them waiting.
struct GalleryLock(tokio_postgres::Client);

impl GalleryLock {
    const KEYS: &str = "SELECT pg_advisory_lock(x'64696e6f'::int, $1)";

    async fn take(place: &Place) -> Self {
        let client = place.server().connect().await;
        let key = crc32fast::hash(b"g").cast_signed();
        client.execute(Self::KEYS, &[&key]).await.unwrap();
        Self(client)
    }

    /// Waits until a transaction waits for the lock.
    async fn is_awaited(&self) {
        const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while self
            .0
            .query_one(WAITING, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Puts one item first, and then seven others at the same time while the first is being stored.
async fn put_together(place: &Place, store: &Gallery) -> Vec<Result<Vec<Written>, Error>> {
    let put = |n: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let item = plain(n.to_string(), Random(n).direction(8));
            store.put(&name("g"), &binding(8), vec![item]).await
        })
    };
    let lock = GalleryLock::take(place).await;
    let mut puts = vec![put(0)];
    lock.is_awaited().await;
    puts.extend((1..8).map(put));
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(lock);
    let mut outcomes = Vec::new();
    for put in puts {
        outcomes.push(put.await.unwrap());
    }
    outcomes
}

async fn transactions(place: &Place) -> i64 {
    let client = place.server().connect().await;
    let count = "SELECT count(*) FROM dinoserve.writes";
    client.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_wait_share_a_transaction() {
    let Some(place) = Place::database("writers_that_wait_share_a_transaction") else {
        return;
    };
    let store = place.open().await;
    store.create(&name("g"), &binding(8)).await.unwrap();
    let before = transactions(&place).await;
    let mut places: Vec<_> = put_together(&place, &store)
        .await
        .into_iter()
        .map(|outcome| outcome.unwrap()[0].place())
        .collect();
    places.sort_unstable();
    assert_eq!(places, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(transactions(&place).await - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_together_only_the_bad_one_fails() {
    let Some(place) = Place::database("of_writers_together_only_the_bad_one_fails") else {
        return;
    };
    let store = place.open().await;
    store.create(&name("g"), &binding(8)).await.unwrap();
    let refuse = "ALTER TABLE dinoserve.items_1 ADD CHECK (id <> '3')";
    let client = place.server().connect().await;
    client.batch_execute(refuse).await.unwrap();
    let outcomes = put_together(&place, &store).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(written) => assert!(n != 3 && written[0].is_created(), "{n}"),
            Err(error) => assert_eq!((n, error.kind()), (3, Kind::Internal), "{error}"),
        }
    }
    let info = store.require_gallery(&name("g")).await.unwrap();
    assert_eq!(info.items, 7);
    // All writers are gone; the next one finds an empty queue.
    let item = plain("8", Random(8).direction(8));
    let written = store.put(&name("g"), &binding(8), vec![item]).await;
    assert!(written.unwrap()[0].is_created());
}

/// Each write ends a queue, and the next one begins one.
#[tokio::test(flavor = "multi_thread")]
async fn no_write_is_lost_between_the_end_of_a_queue_and_the_next() {
    let test = "no_write_is_lost_between_the_end_of_a_queue_and_the_next";
    let Some(place) = Place::database(test) else {
        return;
    };
    let store = place.open().await;
    let writers: Vec<_> = (0..2u64)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..300 {
                    let item = plain(format!("{writer}/{n}"), Random(n).direction(8));
                    let put = store.put(&name("g"), &binding(8), vec![item]).await;
                    assert!(put.unwrap()[0].is_created());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let info = store.require_gallery(&name("g")).await.unwrap();
    assert_eq!(info.items, 600);
}

/// Partitions hold the same items in the same order.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_into_partitions_and_back() {
    let Some(place) = Place::database("a_snapshot_goes_into_partitions_and_back") else {
        return;
    };
    let plain_store = place.open().await;
    let mut random = Random(94);
    let items = (0..500).map(|n| plain(n.to_string(), random.direction(8)));
    let (source, copy) = (name("source"), name("copy"));
    let items = items.collect();
    plain_store.put(&source, &binding(8), items).await.unwrap();
    let mut snapshot = Vec::new();
    write_snapshot(&plain_store, &source, &mut snapshot)
        .await
        .unwrap();
    let place = place.in_partitions(5);
    let store = place.open().await;
    restore_snapshot(&store, &copy, &*snapshot).await.unwrap();
    let mut again = Vec::new();
    write_snapshot(&store, &copy, &mut again).await.unwrap();
    assert!(snapshot == again);
    let (back, mut third) = (name("back"), Vec::new());
    restore_snapshot(&plain_store, &back, &*again)
        .await
        .unwrap();
    write_snapshot(&plain_store, &back, &mut third)
        .await
        .unwrap();
    assert!(snapshot == third);
    let client = place.server().connect().await;
    let parts = "SELECT count(*) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
                 WHERE relkind = 'r'";
    let parts: i64 = client.query_one(parts, &[]).await.unwrap().get(0);
    assert_eq!(parts, 5);
}

/// A database of version 1 is brought up to date, and its galleries stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_first_version_is_migrated() {
    let Some(place) = Place::database("a_database_of_the_first_version_is_migrated") else {
        return;
    };
    let gallery = name("g");
    let mut random = Random(95);
    let item = plain("a", random.direction(8));
    let store = place.open().await;
    store
        .put(&gallery, &binding(8), vec![item.clone()])
        .await
        .unwrap();
    store.close().await;
    drop(store);
    let client = place.server().connect().await;
    let first_version = "SET search_path = dinoserve;
        ALTER TABLE galleries DROP vectors, DROP partitions, DROP version;
        DROP TABLE identity; DELETE FROM schema WHERE version > 1";
    client.batch_execute(first_version).await.unwrap();
    let stores = futures_util::future::join_all((0..4).map(|_| place.open())).await;
    for (n, store) in stores.iter().enumerate() {
        let item = plain(n.to_string(), random.direction(8));
        store.put(&gallery, &binding(8), vec![item]).await.unwrap();
    }
    let info = stores[0].require_gallery(&gallery).await.unwrap();
    assert_eq!((info.items, info.vectors), (5, VectorFormat::F32));
    let found = stores[1]
        .search(&gallery, Search::new(item.vector, 1))
        .await;
    assert_eq!(found.unwrap()[0].item.id, item.id);
    let report = stores[2].check(&gallery).await.unwrap();
    assert_eq!((report.items, report.damage), (5, Vec::new()));
}
