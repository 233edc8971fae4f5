//! What one key's most expensive reads do to the requests of others.
//!
//! The suite checks that all of them are answered. With `DINOSERVE_SOAK_SECONDS`, as in
//! `make soak`, it also measures how much longer the others take: the ratio of their medians, in
//! alternating rounds. The keys are those of `dinoserve keys new`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use reqwest::{
    Client, RequestBuilder,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    process::Process,
    program::{dinoserve, text},
    read_golden, scratch,
};

const ITEMS: usize = 1920;
/// Metadata of an item: about the limit of 16 KiB.
const ENTRIES: usize = 2300;
/// Number of items in a request, below the limit of 64.
const BATCH: usize = 60;
/// Number of expensive reads at the same time: one after the other, and several at once.
const ATTACKERS: [usize; 2] = [1, 4];
const ATTACKS: [&str; 6] = [
    "filtered pages",
    "whole pages",
    "filtered searches",
    "large searches",
    "snapshots",
    "lists",
];

fn vector(n: usize) -> Vec<f32> {
    (0..64).map(|d| ((n * 64 + d) as f32).sin()).collect()
}

/// Returns a filter of the largest size that a request head holds.
fn filter() -> String {
    let values: Vec<usize> = (0..2500).map(|n| n + 1_000_000).collect();
    json!({"metadata": {"n": {"any": values}}}).to_string()
}

fn attack(client: &Client, url: &str, kind: &str) -> RequestBuilder {
    match kind {
        "filtered pages" => {
            let query = [("where", filter()), ("limit", "1000".to_owned())];
            client.get(format!("{url}/v1/gallery")).query(&query)
        }
        "whole pages" => client.get(format!("{url}/v1/gallery?limit=1000")),
        "filtered searches" => {
            let values: Vec<usize> = (0..9999).map(|n| n * 7).collect();
            let filter = json!({"metadata": {"n": {"any": values}}});
            let body = json!({"vector": vector(1), "where": filter, "exact": true});
            client.post(format!("{url}/v1/knn")).json(&body)
        }
        "large searches" => client.get(format!("{url}/v1/knn?id=0&k=1000&exact=true")),
        "snapshots" => client.get(format!("{url}/v1/galleries/default/snapshot")),
        _ => client.get(format!("{url}/v1/galleries")),
    }
}

/// Requests of another client.
fn others(client: &Client, url: &str, round: usize) -> [(&'static str, RequestBuilder); 3] {
    let image = read_golden("dinov2-small-focus/coffee.png");
    let embed = client
        .post(format!("{url}/v1/embed"))
        .header("content-type", "image/png");
    let put = client.put(format!("{url}/v1/gallery/new?gallery=other"));
    [
        ("embed", embed.body(image)),
        ("put", put.json(&json!({"vector": vector(round)}))),
        (
            "get",
            client.get(format!("{url}/v1/gallery/new?gallery=other")),
        ),
    ]
}

/// Makes a key, and returns it and its entry in the key file.
fn key(role: &str) -> (String, String) {
    let mut command = dinoserve();
    let made = command.args(["keys", "new", "--name", role, "--role", role]);
    let made = made.output().expect("the program runs");
    let said = text(&made.stderr);
    let key = said.split_whitespace().nth(3).expect("the key");
    (key.to_owned(), text(&made.stdout))
}

/// Returns a client that sends a key.
fn client(key: &str) -> Client {
    let mut key: HeaderValue = format!("Bearer {key}").parse().expect("a header");
    key.set_sensitive(true);
    crate::support::client::builder()
        .default_headers([(AUTHORIZATION, key)].into_iter().collect())
        .timeout(Duration::from_secs(120))
        .build()
        .expect("a client")
}

/// Sends one expensive request after the other, as the server asks where they are too many.
async fn attack_until(is_over: &AtomicBool, client: &Client, url: &str, kind: &str) -> u64 {
    let mut answered = 0;
    loop {
        let answer = attack(client, url, kind).send().await.unwrap();
        let status = answer.status().as_u16();
        if matches!(status, 429 | 503) && !is_over.load(SeqCst) {
            sleep(Duration::from_secs(1)).await;
            continue;
        }
        answer.bytes().await.unwrap();
        assert!(matches!(status, 200 | 429 | 503), "{kind}: {status}");
        answered += u64::from(status == 200);
        if is_over.load(SeqCst) {
            return answered;
        }
    }
}

/// Returns the median of each kind of request over some time, in seconds.
async fn medians(client: &Client, url: &str, time: Duration) -> [f64; 3] {
    let mut times = [const { Vec::new() }; 3];
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < time || round < 3 {
        // The item exists from the first round on.
        let order = if round == 0 { [0, 1, 2] } else { [2, 0, 1] };
        let mut requests = others(client, url, round).map(Some);
        for index in order {
            let (name, request) = requests[index].take().expect("each once");
            let sent = Instant::now();
            let response = request.send().await.expect("an answer");
            let status = response.status();
            response.bytes().await.expect("a body");
            assert!(status.is_success(), "{name}: {status}");
            times[index].push(sent.elapsed().as_secs_f64());
        }
        round += 1;
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn expensive_reads_of_one_client_leave_the_others_alone() {
    let seconds = std::env::var("DINOSERVE_SOAK_SECONDS").ok();
    let is_soak = seconds.is_some();
    let time = if is_soak {
        Duration::from_secs(4)
    } else {
        Duration::ZERO
    };
    let folder = scratch("interference");
    let (of_reader, reader) = key("read");
    let (of_owner, owner) = key("write");
    let keys = folder.join("keys.toml");
    std::fs::write(&keys, format!("{reader}{owner}")).unwrap();
    let gallery = folder.join("gallery");
    let [gallery, keys] = [&gallery, &keys].map(|path| path.to_str().unwrap());
    let server = Process::start(&["--gallery", gallery, "--api-keys", keys]);
    let attacker = client(&of_reader);
    let client = client(&of_owner);
    let items = if is_soak { ITEMS } else { ITEMS / 8 };
    for first in (0..items).step_by(BATCH) {
        let batch: Vec<Value> = (first..(first + BATCH).min(items))
            .map(|n| {
                let list: Vec<usize> = (0..ENTRIES).map(|entry| entry * 43 + n % 43).collect();
                json!({"id": n.to_string(), "vector": vector(n), "metadata": {"n": list}})
            })
            .collect();
        let request = client.post(format!("{}/v1/gallery", server.url));
        let stored = request.json(&json!({"items": batch})).send().await.unwrap();
        assert_eq!(stored.status(), 200);
    }
    for (kind, attackers) in ATTACKS
        .into_iter()
        .flat_map(|kind| ATTACKERS.map(|n| (kind, n)))
    {
        let mut alone = [0.0; 3];
        let mut attacked = [0.0; 3];
        let mut answered = 0;
        for _ in 0..if is_soak { 3 } else { 1 } {
            for (sum, median) in alone
                .iter_mut()
                .zip(medians(&client, &server.url, time).await)
            {
                *sum += median;
            }
            let is_over = Arc::new(AtomicBool::new(false));
            let attacks: Vec<_> = (0..attackers)
                .map(|_| {
                    let client = attacker.clone();
                    let url = server.url.clone();
                    let is_over = Arc::clone(&is_over);
                    tokio::spawn(async move { attack_until(&is_over, &client, &url, kind).await })
                })
                .collect();
            for (sum, median) in attacked
                .iter_mut()
                .zip(medians(&client, &server.url, time).await)
            {
                *sum += median;
            }
            is_over.store(true, SeqCst);
            for attack in attacks {
                answered += attack.await.unwrap();
            }
        }
        assert!(answered > 0, "{kind}");
        if is_soak {
            let [embed, put, get] = std::array::from_fn(|n| attacked[n] / alone[n]);
            println!(
                "under {kind}, {attackers} at a time ({answered} answered), medians grow by: \
                 embed {embed:.2}, put {put:.2}, get {get:.2}"
            );
        }
    }
}
