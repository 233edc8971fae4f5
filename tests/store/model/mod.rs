//! Eight clients with random requests against servers that are killed and started again, compared
//! with a model: keys are linearizable, filters and pages miss nothing, scores are those of the
//! versions that they come with, and no acknowledged write is lost.
//!
//! `DINOSERVE_SOAK_SECONDS` sets the duration, and `DINOSERVE_SOAK_SEED` the seed.

mod client;
mod history;
mod world;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use self::{
    client::{Client, KEYS},
    history::Event,
    world::{Slot, World},
};
use crate::{
    store::contract::{Place, Random},
    support::{process::Process, tiny_home},
};

const CLIENTS: u64 = 8;

fn number(variable: &str, default: u64) -> u64 {
    let value = std::env::var(variable);
    value.map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_f32_agrees_with_the_model() {
    run(
        &Place::folder("model-f32"),
        &["--gallery-vectors", "f32"],
        1,
        1e-5,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_f16_agrees_with_the_model() {
    run(
        &Place::folder("model-f16"),
        &["--gallery-vectors", "f16"],
        1,
        2e-3,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_agrees_with_the_model() {
    if let Some(place) = Place::database("store::model") {
        run(&place, &[], 2, 1e-5).await;
    }
}

async fn run(place: &Place, flags: &[&str], servers: usize, tolerance: f64) {
    let seconds = number("DINOSERVE_SOAK_SECONDS", 8);
    let seed = number("DINOSERVE_SOAK_SEED", 70);
    let home = tiny_home(&["tiny-reg"]);
    let location = place.location();
    let start = |home: &Path| {
        let model = ["--model", "tiny-reg", "--gallery", &location];
        let flags = [&model[..], flags].concat();
        Process::start_in(home, &flags)
    };
    let mut processes: Vec<Process> = (0..servers).map(|_| start(&home)).collect();
    let slots = processes.iter().map(|process| Slot {
        url: RwLock::new(process.url.clone()),
        epoch: AtomicU64::new(0),
    });
    let world = Arc::new(World {
        servers: slots.collect(),
        clock: Instant::now(),
        next_version: AtomicU64::new(1),
        is_over: AtomicBool::new(false),
        lost: Mutex::default(),
        tolerance,
    });
    Client::new(&world, seed).create_gallery().await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(Client::new(&world, seed * 1000 + n).run()))
        .collect();

    // Kills at random times, each after some time of work, and one at least.
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    loop {
        let pause = Duration::from_millis(1500 + random.next() % 1500);
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::sleep(pause.min(left)).await;
        if Instant::now() >= end && kills > 0 {
            break;
        }
        let victim = random.below(servers);
        let slot = &world.servers[victim];
        slot.epoch.fetch_add(1, SeqCst);
        processes[victim].signal("KILL");
        processes[victim].wait(Duration::from_secs(20));
        processes[victim] = start(&home);
        slot.url.write().unwrap().clone_from(&processes[victim].url);
        slot.epoch.fetch_add(1, SeqCst);
        kills += 1;
    }
    world.is_over.store(true, SeqCst);
    let mut events: BTreeMap<usize, Vec<Event>> = BTreeMap::new();
    let mut requests = 0;
    for client in clients {
        let seen = client.await.expect("a client that found nothing wrong");
        requests += seen.requests;
        for (key, event) in seen.events {
            events.entry(key).or_default().push(event);
        }
    }
    // The last state is that of the history, and is on disk.
    let mut last = Client::new(&world, seed);
    last.read_everything().await;
    for (key, event) in last.finish().events {
        events.entry(key).or_default().push(event);
    }
    let lost = world.lost.lock().unwrap();
    assert!(
        lost.is_empty(),
        "connections were lost without a kill: {lost:#?}"
    );
    let operations: usize = events.values().map(Vec::len).sum();
    println!("{requests} requests, {operations} operations on keys, {kills} kills");
    assert!(
        requests > 100 && kills > 0 && events.len() == KEYS,
        "{requests} requests"
    );
    for (key, events) in events {
        history::check(&events).unwrap_or_else(|error| panic!("key {key}, seed {seed}: {error}"));
    }
}
