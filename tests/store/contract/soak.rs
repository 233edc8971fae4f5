//! Concurrent writers and readers: no write is lost, and a read after an acknowledgment sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use dinoserve::{
    error::Kind,
    gallery::{Gallery, Item, Parts, Search, VectorFormat, Written},
};

use super::{Place, Random, binding, full, id, name, over_both_stores, read_all};

over_both_stores!(writers_and_readers_work_at_once);

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_readers_work_at_once_on_8_bit_vectors() {
    let place = Place::folder("soak-i8").with_vectors(VectorFormat::I8);
    writers_and_readers_work_at_once(&place).await;
}

const WRITERS: usize = 8;
const READERS: usize = 8;
/// Slots per writer. One write stores two items of a slot, so that readers can check that writes
/// are atomic.
const SLOTS: usize = 12;
const DIM: usize = 32;

/// The state of a slot. Writes are numbered from 1, and every fifth deletes.
#[derive(Default)]
struct Slot {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

struct Soak {
    stores: Vec<Gallery>,
    slots: Vec<Slot>,
    directions: Vec<Vec<f32>>,
    over: AtomicBool,
}

fn deletes(write: u64) -> bool {
    write.is_multiple_of(5)
}

fn version(item: &Item) -> u64 {
    item.metadata.object()["write"].as_u64().unwrap()
}

pub fn duration() -> Duration {
    let seconds = std::env::var("DINOSERVE_SOAK_SECONDS")
        .ok()
        .map_or(5, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

async fn writers_and_readers_work_at_once(place: &Place) {
    soak(vec![place.open().await]).await;
}

/// Works on the gallery `g` through all stores, which are one store or share a database.
pub async fn soak(stores: Vec<Gallery>) {
    let mut random = Random(60);
    let slots = WRITERS * SLOTS;
    let directions = (0..slots).map(|_| random.direction(DIM)).collect();
    let slots = (0..slots).map(|_| Slot::default()).collect();
    let soak = Arc::new(Soak {
        stores,
        slots,
        directions,
        over: AtomicBool::new(false),
    });
    soak.stores[0]
        .create(&name("g"), &binding(DIM))
        .await
        .unwrap();

    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(Arc::clone(&soak).write(n)))
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|n| tokio::spawn(Arc::clone(&soak).read(n)))
        .collect();
    tokio::time::sleep(duration()).await;
    soak.over.store(true, SeqCst);
    let mut writes = 0;
    let mut reads = 0;
    for writer in writers {
        writes += writer.await.unwrap();
    }
    for reader in readers {
        reads += reader.await.unwrap();
    }
    println!("{writes} writes and {reads} reads in {:?}", duration());
    assert!(
        writes > 20 && reads > 20,
        "{writes} writes and {reads} reads"
    );

    // At the end each slot has the state of its last write.
    let gallery = name("g");
    for store in &soak.stores {
        let mut expected = 0;
        for (n, slot) in soak.slots.iter().enumerate() {
            let last = slot.acknowledged.load(SeqCst);
            for half in ["left", "right"] {
                match store
                    .require_item(&gallery, &id(format!("{n}/{half}")), Parts::NONE)
                    .await
                {
                    Ok(found) => assert_eq!(version(&found.item), last),
                    Err(error) => assert!(
                        error.kind() == Kind::NotFound && deletes(last),
                        "{n}: {error} after {last}"
                    ),
                }
                expected += u64::from(!deletes(last));
            }
        }
        assert_eq!(
            store.require_gallery(&gallery).await.unwrap().items,
            expected
        );
        let report = store.check(&gallery).await.unwrap();
        assert_eq!(
            (report.items, report.damage),
            (expected, Vec::<String>::new())
        );
    }
}

impl Soak {
    fn store(&self, random: &mut Random) -> &Gallery {
        random.of(&self.stores)
    }

    async fn write(self: Arc<Self>, writer: usize) -> u64 {
        let mut random = Random(100 + writer as u64);
        let gallery = name("g");
        let mut writes = 0;
        while !self.over.load(SeqCst) {
            let n = writer * SLOTS + random.below(SLOTS);
            let slot = &self.slots[n];
            let write = slot.begun.fetch_add(1, SeqCst) + 1;
            let halves = [format!("{n}/left"), format!("{n}/right")];
            let store = self.store(&mut random);
            if deletes(write) {
                let deleted = store.delete(&gallery, halves.map(id).into()).await.unwrap();
                assert_eq!(deleted, [true, true], "{n}: {write}");
            } else {
                let metadata = format!(r#"{{"write":{write}}}"#);
                let items = halves.map(|id| {
                    full(
                        &id,
                        &format!("slot {n}"),
                        &metadata,
                        self.directions[n].clone(),
                    )
                });
                let new = store
                    .put(&gallery, &binding(DIM), items.into())
                    .await
                    .unwrap();
                let new: Vec<_> = new.into_iter().map(Written::is_created).collect();
                let first = write == 1 || deletes(write - 1);
                assert_eq!(new, [first, first], "{n}: {write}");
            }
            slot.acknowledged.store(write, SeqCst);
            writes += 1;
        }
        writes
    }

    async fn read(self: Arc<Self>, reader: usize) -> u64 {
        let mut random = Random(200 + reader as u64);
        let gallery = name("g");
        let mut reads = 0;
        while !self.over.load(SeqCst) {
            let n = random.below(self.slots.len());
            let left = format!("{n}/left");
            let store = self.store(&mut random);
            let before = self.slots[n].acknowledged.load(SeqCst);
            match reads % 8 {
                0 => self.read_whole(store).await,
                1..=3 => {
                    let search = Search::new(self.directions[n].clone(), 2);
                    let found = store.search(&gallery, search).await.unwrap();
                    let found: Vec<&Item> = found.iter().map(|found| &found.item).collect();
                    let own: Vec<_> = found
                        .iter()
                        .filter(|item| item.id.as_str().starts_with(&format!("{n}/")))
                        .collect();
                    assert!(
                        own.is_empty() || own.len() == 2,
                        "{n}: one of two halves is found"
                    );
                    self.seen(n, before, own.first().map(|item| version(item)));
                    self.seen(n, before, own.last().map(|item| version(item)));
                }
                _ => match store
                    .require_item(
                        &gallery,
                        &id(left),
                        Parts {
                            vector: true,
                            ..Parts::NONE
                        },
                    )
                    .await
                {
                    Ok(found) => {
                        assert_eq!(found.vector, self.directions[n]);
                        self.seen(n, before, Some(version(&found.item)));
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::NotFound, "{error}");
                        self.seen(n, before, None);
                    }
                },
            }
            reads += 1;
        }
        reads
    }

    /// A read must be no older than the write acknowledged before it began, and no newer than the
    /// write that had begun when it ended.
    #[track_caller]
    fn seen(&self, n: usize, before: u64, version: Option<u64>) {
        let begun = self.slots[n].begun.load(SeqCst);
        match version {
            Some(version) => {
                let fresh = version >= before && version <= begun && !deletes(version);
                assert!(
                    fresh,
                    "{n}: write {version} seen after {before} was acknowledged, {begun} begun"
                );
            }
            None => {
                let gone = (before..=begun).any(|write| write == 0 || deletes(write));
                assert!(
                    gone,
                    "{n}: nothing seen after {before} was acknowledged, {begun} begun"
                );
            }
        }
    }

    /// Checks that a full read has both items of every write, or none.
    async fn read_whole(&self, store: &Gallery) {
        let before: Vec<u64> = self
            .slots
            .iter()
            .map(|slot| slot.acknowledged.load(SeqCst))
            .collect();
        let mut halves = vec![[None; 2]; self.slots.len()];
        for stored in read_all(store, &name("g"), Parts::NONE).await {
            let (n, half) = stored.item.id.as_str().split_once('/').unwrap();
            halves[n.parse::<usize>().unwrap()][usize::from(half == "right")] =
                Some(version(&stored.item));
        }
        for (n, [left, right]) in halves.into_iter().enumerate() {
            assert_eq!(left, right, "{n}: a partial write is seen");
            self.seen(n, before[n], left);
        }
    }
}
