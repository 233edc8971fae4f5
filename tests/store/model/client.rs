//! A client that sends random requests, checks each answer by itself, and records what it saw.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{
    history::{Event, Filter, Operation},
    world::World,
};
use crate::store::contract::Random;

/// Number of items that the clients write.
pub const KEYS: usize = 24;
/// Width of the vectors: that of the tiny model.
const DIM: usize = 64;
/// An item that no client writes again, so that the gallery exists.
const ANCHOR: &str = "anchor";
/// Conditions on versions, as the server and as the model know them.
const FILTERS: [(&str, Filter); 4] = [
    (r#"{"metadata": {"parity": "even"}}"#, |version| {
        version.is_multiple_of(2)
    }),
    (
        r#"{"metadata": {"rest": {"any": [0, 3, 4, 99, "x"]}}}"#,
        |version| [0, 3, 4].contains(&(version % 5)),
    ),
    (r#"{"metadata": {"list": {"gte": 4}}}"#, |version| {
        version % 7 >= 4
    }),
    (r#"{"label": {"any": ["l1", "l2"]}}"#, |version| {
        version % 3 != 0
    }),
];

/// What a client saw, by key.
#[derive(Default)]
pub struct Seen {
    pub requests: usize,
    pub events: Vec<(usize, Event)>,
}

pub struct Client {
    world: Arc<World>,
    random: Random,
    http: reqwest::Client,
    seen: Seen,
}

/// An answer, with the time of the request.
struct Answer {
    begin: u64,
    end: u64,
    status: u16,
    body: Value,
}

fn id(key: usize) -> String {
    format!("key {key}/ä")
}

fn key_of(id: &str) -> Option<usize> {
    let key = id.strip_prefix("key ")?.strip_suffix("/ä")?;
    Some(key.parse().expect("one of our ids"))
}

/// Returns the vector of a version of an item.
fn vector(key: usize, version: u64) -> Vec<f32> {
    Random(version.wrapping_mul(0x9e37_79b9) ^ key as u64).direction(DIM)
}

fn content(key: usize, version: u64) -> Value {
    let parity = if version.is_multiple_of(2) {
        "even"
    } else {
        "odd"
    };
    let metadata = json!({
        "version": version, "parity": parity, "rest": version % 5,
        "list": [version % 7, version % 3],
    });
    let label = format!("l{}", version % 3);
    json!({"vector": vector(key, version), "label": label, "metadata": metadata})
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// Returns the version of an item, after a check that all of the item is of that version.
fn version_of(key: usize, item: &Value) -> u64 {
    let version = item["metadata"]["version"].as_u64().expect("a version");
    let expected = content(key, version);
    assert_eq!(
        (&item["label"], &item["metadata"]),
        (&expected["label"], &expected["metadata"])
    );
    version
}

impl Client {
    pub fn new(world: &Arc<World>, seed: u64) -> Self {
        let http = crate::support::client::builder()
            .timeout(Duration::from_secs(30))
            .build();
        Self {
            world: Arc::clone(world),
            random: Random(seed),
            http: http.expect("a client"),
            seen: Seen::default(),
        }
    }

    pub async fn run(mut self) -> Seen {
        while !self.world.is_over.load(SeqCst) {
            let key = self.random.below(KEYS);
            match self.random.below(12) {
                0..=2 => self.put(key).await,
                3 => self.put_two(key).await,
                4 => self.delete(key).await,
                5 | 6 => self.get(key).await,
                7 => self.list().await,
                8 => self.search_for_vector().await,
                _ => self.search_for_item(key).await,
            }
            // Keeps the history short enough to be checked in seconds.
            let pause = self.random.below(40) as u64;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.seen
    }

    pub fn finish(self) -> Seen {
        self.seen
    }

    pub async fn create_gallery(&mut self) {
        let path = format!("/v1/gallery/{ANCHOR}");
        let body = json!({"vector": vector(KEYS, 0)});
        let answer = self
            .send(|http, url| http.put(format!("{url}{path}")).json(&body))
            .await;
        assert_eq!(answer.expect("an answer").status, 201);
    }

    pub async fn read_everything(&mut self) {
        for key in 0..KEYS {
            self.get(key).await;
        }
        for _ in 0..8 {
            self.list().await;
            self.search_for_vector().await;
        }
    }

    /// Sends a request to one of the servers. Returns the time of its begin if there is no answer.
    async fn send(
        &mut self,
        request: impl FnOnce(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Result<Answer, u64> {
        let server = &self.world.servers[self.random.below(self.world.servers.len())];
        let epoch = server.epoch.load(SeqCst);
        let url = server.url.read().expect("the URL").clone();
        self.seen.requests += 1;
        let begin = self.world.now();
        let answer = async {
            let response = request(&self.http, &url).send().await?;
            let status = response.status().as_u16();
            let bytes = response.bytes().await?;
            Ok::<_, reqwest::Error>((status, bytes))
        };
        match answer.await {
            Ok((status, bytes)) => {
                let end = self.world.now();
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                assert!(
                    [200, 201, 204, 404, 503].contains(&status),
                    "{status}: {body}"
                );
                match status {
                    // The write may have been applied.
                    503 => Err(begin),
                    _ => Ok(Answer {
                        begin,
                        end,
                        status,
                        body,
                    }),
                }
            }
            Err(error) => {
                let is_killed = epoch % 2 == 1 || server.epoch.load(SeqCst) != epoch;
                if !is_killed {
                    let mut lost = self.world.lost.lock().expect("the list");
                    lost.push(format!("after {:.3} s: {error:?}", begin as f64 / 1e9));
                }
                // A server that starts gets no flood of requests.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(begin)
            }
        }
    }

    fn record(&mut self, key: usize, begin: u64, end: Option<u64>, operation: Operation) {
        self.seen.events.push((
            key,
            Event {
                begin,
                end,
                operation,
            },
        ));
    }

    fn version(&self) -> u64 {
        self.world.next_version.fetch_add(1, SeqCst)
    }

    async fn put(&mut self, key: usize) {
        let version = self.version();
        let body = content(key, version);
        let path = path_of(key);
        let answer = self
            .send(|http, url| http.put(format!("{url}{path}")).json(&body))
            .await;
        match answer {
            Ok(answer) => {
                let created = answer.status == 201;
                assert_eq!(answer.body["created"], created);
                let operation = Operation::Put(version, Some(created));
                self.record(key, answer.begin, Some(answer.end), operation);
            }
            Err(begin) => self.record(key, begin, None, Operation::Put(version, None)),
        }
    }

    /// Stores two items in one transaction.
    async fn put_two(&mut self, key: usize) {
        let keys = [key, (key + 1 + self.random.below(KEYS - 1)) % KEYS];
        let versions = keys.map(|_| self.version());
        let items: Vec<Value> = (0..2)
            .map(|n| {
                let mut item = content(keys[n], versions[n]);
                item["id"] = json!(id(keys[n]));
                item
            })
            .collect();
        let body = json!({"items": items});
        let answer = self
            .send(|http, url| http.post(format!("{url}/v1/gallery")).json(&body))
            .await;
        for n in 0..2 {
            match &answer {
                Ok(answer) => {
                    let created = match answer.body["data"][n]["status"].as_str() {
                        Some("created") => true,
                        Some("replaced") => false,
                        _ => panic!("{}", answer.body),
                    };
                    let operation = Operation::Put(versions[n], Some(created));
                    self.record(keys[n], answer.begin, Some(answer.end), operation);
                }
                Err(begin) => {
                    self.record(keys[n], *begin, None, Operation::Put(versions[n], None));
                }
            }
        }
    }

    async fn delete(&mut self, key: usize) {
        let path = path_of(key);
        match self
            .send(|http, url| http.delete(format!("{url}{path}")))
            .await
        {
            Ok(answer) => {
                let operation = Operation::Delete(Some(answer.status == 204));
                self.record(key, answer.begin, Some(answer.end), operation);
            }
            Err(begin) => self.record(key, begin, None, Operation::Delete(None)),
        }
    }

    async fn get(&mut self, key: usize) {
        let path = format!("{}?vector=true", path_of(key));
        let Ok(answer) = self
            .send(|http, url| http.get(format!("{url}{path}")))
            .await
        else {
            return;
        };
        let state = (answer.status == 200).then(|| {
            let version = version_of(key, &answer.body);
            let stored = answer.body["vector"].as_array().expect("a vector").iter();
            for (stored, value) in stored.zip(vector(key, version)) {
                let difference = stored.as_f64().expect("a number") - f64::from(value);
                assert!(
                    difference.abs() < self.world.tolerance,
                    "{key}, version {version}"
                );
            }
            version
        });
        self.record(key, answer.begin, Some(answer.end), Operation::Read(state));
    }

    fn random_filter(&mut self) -> Option<(&'static str, Filter)> {
        let n = self.random.below(2 * FILTERS.len());
        FILTERS.get(n).copied()
    }

    /// Reads all pages.
    async fn list(&mut self) {
        let filter = self.random_filter();
        let limit = 1 + self.random.below(12);
        let mut found: BTreeMap<usize, (u64, u64, u64)> = BTreeMap::new();
        let mut begin = None;
        let mut cursor: Option<String> = None;
        loop {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(filter.map(|(text, _)| ("where", text.to_owned())));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let answer = self
                .send(|http, url| http.get(format!("{url}/v1/gallery")).query(&query))
                .await;
            let Ok(page) = answer else { return };
            begin.get_or_insert(page.begin);
            let items = page.body["items"].as_array().expect("items");
            assert!(items.len() <= limit);
            for item in items {
                let Some(key) = key_of(item["id"].as_str().expect("an id")) else {
                    continue;
                };
                let version = version_of(key, item);
                // An item that is deleted and stored again has another place.
                found.insert(key, (version, page.begin, page.end));
                self.record(
                    key,
                    page.begin,
                    Some(page.end),
                    Operation::Read(Some(version)),
                );
            }
            cursor = page.body["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                let begin = begin.unwrap_or(page.begin);
                return self.record_found(&found, filter, begin, page.end);
            }
        }
    }

    /// Records which items were not found, and checks that the others pass the filter.
    fn record_found(
        &mut self,
        found: &BTreeMap<usize, (u64, u64, u64)>,
        filter: Option<(&'static str, Filter)>,
        begin: u64,
        end: u64,
    ) {
        let passes: Filter = filter.map_or(|_| true, |(_, passes)| passes);
        for key in 0..KEYS {
            match found.get(&key) {
                Some((version, ..)) => {
                    assert!(
                        passes(*version),
                        "version {version} does not pass {filter:?}"
                    );
                }
                None => self.record(key, begin, Some(end), Operation::Missed(passes)),
            }
        }
    }

    async fn search_for_vector(&mut self) {
        let filter = self.random_filter();
        let query = self.random.direction(DIM);
        let mut body = json!({"vector": query, "k": KEYS + 1});
        if let Some((text, _)) = filter {
            body["where"] = serde_json::from_str(text).expect("JSON");
        }
        let answer = self
            .send(|http, url| http.post(format!("{url}/v1/knn")).json(&body))
            .await;
        let Ok(answer) = answer else { return };
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.check_neighbors(&answer, &query, filter);
    }

    async fn search_for_item(&mut self, key: usize) {
        let filter = self.random_filter();
        let mut query = vec![
            ("id", id(key)),
            ("include_self", "true".to_owned()),
            ("k", (KEYS + 1).to_string()),
        ];
        query.extend(filter.map(|(text, _)| ("where", text.to_owned())));
        let answer = self
            .send(|http, url| http.get(format!("{url}/v1/knn")).query(&query))
            .await;
        let Ok(answer) = answer else { return };
        if answer.status == 404 {
            let operation = Operation::Read(None);
            return self.record(key, answer.begin, Some(answer.end), operation);
        }
        // The vector of the query is known only with the version of the item.
        let neighbors = answer.body["neighbors"].as_array().expect("neighbors");
        let own = neighbors.iter().find(|item| item["id"] == id(key));
        match own {
            Some(own) => {
                let query = vector(key, version_of(key, own));
                self.check_neighbors(&answer, &query, filter);
            }
            None => assert!(filter.is_some(), "{key} is not among {}", answer.body),
        }
    }

    fn check_neighbors(
        &mut self,
        answer: &Answer,
        query: &[f32],
        filter: Option<(&'static str, Filter)>,
    ) {
        let mut found = BTreeMap::new();
        let mut before = f64::INFINITY;
        for item in answer.body["neighbors"].as_array().expect("neighbors") {
            let score = item["score"].as_f64().expect("a score");
            assert!(score <= before, "{}", answer.body);
            before = score;
            let name = item["id"].as_str().expect("an id");
            let (expected, of) = match key_of(name) {
                Some(key) => {
                    let version = version_of(key, item);
                    found.insert(key, (version, answer.begin, answer.end));
                    let seen = Operation::Read(Some(version));
                    self.record(key, answer.begin, Some(answer.end), seen);
                    (dot(query, &vector(key, version)), version)
                }
                None => (dot(query, &vector(KEYS, 0)), 0),
            };
            assert!(
                (score - expected).abs() < self.world.tolerance,
                "{name}, version {of}: {score} and not {expected}"
            );
        }
        self.record_found(&found, filter, answer.begin, answer.end);
    }
}

fn path_of(key: usize) -> String {
    format!("/v1/gallery/key%20{key}%2F%C3%A4")
}
