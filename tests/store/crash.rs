//! Killed writers: no acknowledged write is lost, and no write is partial.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use dinoserve::gallery::{self, Gallery, GalleryConfig, GalleryName, ItemId, OpenMode, Search};
use serde::{Deserialize, Serialize};

use crate::support::{
    items::{SplitMix, binding, item, read_all, version_of},
    scratch,
};

/// Concurrent writers, each with ids of its own, so that commits are shared.
const WRITERS: usize = 4;
const IDS: u64 = 60;
const ROUNDS: u64 = 50;
/// Environment variable with the folder and the seed of the writer process.
const TASK: &str = "DINOSERVE_TEST_CRASH";

/// One transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Operation {
    /// Items with their versions.
    Put(BTreeMap<String, u64>),
    Delete(Vec<String>),
}

/// A line of the writer process, before or after an operation.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Begin(usize, Operation),
    Done(usize),
}

fn config() -> GalleryConfig {
    // So few items that the approximate index is built and replaced meanwhile.
    GalleryConfig {
        exact_up_to: 50,
        ..GalleryConfig::default()
    }
}

async fn open(folder: &Path) -> Gallery {
    gallery::open(folder.to_str().unwrap(), &config(), OpenMode::Serve)
        .await
        .unwrap()
}

/// The process that is killed. The test below starts it with a task; as a test it has none and
/// returns.
#[test]
fn writer_process() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let (seed, folder) = task.split_once(' ').unwrap();
    let mut seeds = SplitMix(seed.parse().unwrap());
    let folder = PathBuf::from(folder);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = open(&folder).await;
        // Deleting needs an existing gallery.
        store
            .create(&GalleryName::default(), &binding())
            .await
            .unwrap();
        let writers = (0..WRITERS)
            .map(|writer| tokio::spawn(write(store.clone(), writer, SplitMix(seeds.next()))));
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

/// Writes for ever.
async fn write(store: Gallery, writer: usize, mut random: SplitMix) {
    let name = GalleryName::default();
    // One call per line, so that lines are whole and those of several threads do not mix.
    let say = |line: Line| {
        std::io::stderr()
            .write_all(format!("{}\n", serde_json::to_string(&line).unwrap()).as_bytes())
            .unwrap();
    };
    loop {
        let ids: Vec<String> = (0..=random.below(6))
            .map(|_| format!("{writer}/{}", random.below(IDS)))
            .collect();
        let operation = if random.below(3) == 0 {
            Operation::Delete(ids)
        } else {
            Operation::Put(
                ids.into_iter()
                    .map(|id| (id, random.below(1 << 40)))
                    .collect(),
            )
        };
        say(Line::Begin(writer, operation.clone()));
        match operation {
            Operation::Put(versions) => {
                let items = versions
                    .iter()
                    .map(|(id, version)| item(id, *version))
                    .collect();
                store.put(&name, &binding(), items).await.unwrap();
            }
            Operation::Delete(ids) => {
                let ids = ids.into_iter().map(|id| ItemId::new(id).unwrap()).collect();
                store.delete(&name, ids).await.unwrap();
            }
        }
        say(Line::Done(writer));
    }
}

/// The items of a writer by id: the version, and the place if it is known.
type Items = BTreeMap<String, (u64, Option<u64>)>;

fn after(items: &Items, operation: &Operation) -> Items {
    let mut items = items.clone();
    match operation {
        Operation::Put(versions) => {
            for (id, version) in versions {
                items.entry(id.clone()).or_default().0 = *version;
            }
        }
        Operation::Delete(ids) => items.retain(|id, _| !ids.contains(id)),
    }
    items
}

/// Checks that the found items are the expected ones; a known place must be the same.
fn agree(expected: &Items, found: &Items) -> bool {
    let same = |(version, place): &(u64, Option<u64>),
                (found_version, found_place): &(u64, Option<u64>)| {
        version == found_version && (place.is_none() || place == found_place)
    };
    expected.len() == found.len()
        && expected
            .iter()
            .all(|(id, item)| found.get(id).is_some_and(|found| same(item, found)))
}

/// Runs a writer process, kills it, and returns the unfinished operation of each writer.
/// Acknowledged operations are applied to `expected`.
fn run_and_kill(
    folder: &Path,
    random: &mut SplitMix,
    expected: &mut [Items],
) -> (Vec<Option<Operation>>, usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["store::crash::writer_process", "--exact", "--nocapture"])
        .env(TASK, format!("{} {}", random.next(), folder.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut under_way = vec![None; expected.len()];
    let mut acknowledged = 0;
    let mut apply = |line: String| match serde_json::from_str(&line)
        .unwrap_or_else(|_| panic!("the writer printed {line}"))
    {
        Line::Begin(writer, operation) => under_way[writer] = Some(operation),
        Line::Done(writer) => {
            let operation: Operation = under_way[writer].take().unwrap();
            expected[writer] = after(&expected[writer], &operation);
            acknowledged += 1;
        }
    };
    // The first line says that the gallery is open.
    apply(lines.next().expect("the writer writes").unwrap());
    std::thread::scope(|scope| {
        let delay = Duration::from_micros(random.below(120_000));
        scope.spawn(move || {
            std::thread::sleep(delay);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        lines.map(Result::unwrap).for_each(&mut apply);
    });
    (under_way, acknowledged)
}

#[test]
fn a_killed_writer_loses_nothing_and_leaves_nothing_half_done() {
    let folder = scratch("gallery-crash").join("gallery");
    let seed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let mut random = SplitMix(seed);
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let name = GalleryName::default();
    let mut expected = vec![Items::new(); WRITERS];
    let mut acknowledged = 0;
    let mut half_way = 0;
    let mut survived = 0;
    for round in 0..ROUNDS {
        let (under_way, count) = run_and_kill(&folder, &mut random, &mut expected);
        acknowledged += count;
        tokio.block_on(async {
            let store = open(&folder).await;
            let Ok(info) = store.require_gallery(&name).await else {
                let is_empty = expected.iter().all(Items::is_empty);
                assert!(is_empty, "seed {seed}, round {round}: the gallery is gone");
                return store.close().await;
            };
            let stored = read_all(&store, &name).await;
            assert_eq!(
                info.items as usize,
                stored.len(),
                "seed {seed}, round {round}"
            );
            let mut found = vec![Items::new(); WRITERS];
            for item in &stored {
                let id = item.item.id.as_str();
                let writer: usize = id.split_once('/').unwrap().0.parse().unwrap();
                found[writer].insert(id.to_owned(), (version_of(item), Some(item.item.place)));
            }
            for ((expected, found), operation) in expected.iter_mut().zip(found).zip(under_way) {
                let without = agree(expected, &found);
                let with = operation
                    .as_ref()
                    .is_some_and(|operation| agree(&after(expected, operation), &found));
                assert!(
                    without || with,
                    "seed {seed}, round {round}: expected {expected:?}, \
                     under way {operation:?}, found {found:?}"
                );
                half_way += usize::from(operation.is_some());
                survived += usize::from(with && !without);
                *expected = found;
            }
            let report = store.check(&name).await.unwrap();
            assert!(
                report.damage.is_empty(),
                "seed {seed}, round {round}: {:?}",
                report.damage
            );
            assert_eq!(report.items, info.items);
            // Stored items are found, by the index and by an exact search.
            for exact in [false, true] {
                let at = random.below(stored.len().max(1) as u64) as usize;
                let Some(wanted) = stored.get(at) else {
                    continue;
                };
                let search = Search {
                    exact,
                    ..Search::new(wanted.vector.clone(), 1)
                };
                let nearest = store.search(&name, search).await.unwrap();
                assert_eq!(nearest[0].item, wanted.item, "seed {seed}, round {round}");
            }
            store.close().await;
        });
    }
    eprintln!(
        "{acknowledged} writes acknowledged, {half_way} under way when killed, \
         {survived} of these were kept"
    );
    assert!(
        acknowledged > 500 && half_way > 100,
        "{acknowledged} acknowledged, {half_way} under way"
    );
}
