//! Clients: some that wait for their answers, and crowds that do not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use reqwest::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::sleep_until,
};

/// One kind of request.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where it goes.
    pub(crate) url: String,
    /// Its bodies, used in turn.
    pub(crate) photos: Arc<Vec<Bytes>>,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// This many clients, each of which sends its next request when it has its answer.
    Closed { clients: usize },
    /// This many requests a second on average, however long answers take. The gaps are exponential,
    /// as those of people who do not know of each other.
    Open { rate: f64 },
}

/// What became of the requests.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// From the intended start to the whole answer, in microseconds, of those that were answered
    /// with 2xx.
    pub(crate) good: Histogram<u64>,
    /// The same of those that were refused with 503.
    pub(crate) refused: Histogram<u64>,
    /// Answers by status; 0 stands for none.
    pub(crate) statuses: BTreeMap<u16, usize>,
    /// Milliseconds of each stage as `Server-Timing` tells them.
    pub(crate) stages: BTreeMap<String, Vec<f64>>,
    /// How long it took from the first request to the last answer.
    pub(crate) time: Duration,
}

impl Outcome {
    fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid");
        Self {
            good: histogram(),
            refused: histogram(),
            statuses: BTreeMap::new(),
            stages: BTreeMap::new(),
            time: Duration::ZERO,
        }
    }

    fn add(&mut self, answer: Answer) {
        *self.statuses.entry(answer.status).or_default() += 1;
        let micros = answer.latency.as_micros() as u64;
        match answer.status {
            200..300 => self.good.saturating_record(micros),
            503 => self.refused.saturating_record(micros),
            _ => {}
        }
        for entry in answer.timing.split(", ") {
            if let Some((stage, ms)) = entry.split_once(";dur=")
                && let Ok(ms) = ms.parse()
            {
                self.stages.entry(stage.to_owned()).or_default().push(ms);
            }
        }
    }

    /// Good answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.good.len() as f64 / self.time.as_secs_f64()
    }

    /// A quantile of the good answers' latencies in milliseconds.
    pub(crate) fn latency(&self, quantile: f64) -> f64 {
        self.good.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Answers that are neither good nor refusals.
    pub(crate) fn failures(&self) -> usize {
        self.statuses
            .iter()
            .filter(|(status, _)| !matches!(status, 200..300 | 503))
            .map(|(_, count)| count)
            .sum()
    }

    /// The median of a stage in milliseconds.
    pub(crate) fn stage(&self, name: &str) -> f64 {
        self.stages
            .get(name)
            .map_or(f64::NAN, |times| crate::median(times))
    }
}

struct Answer {
    status: u16,
    latency: Duration,
    timing: String,
}

/// Sends requests to the targets in turn for `time`, and waits for all answers.
pub(crate) async fn load(targets: &[Target], arrivals: Arrivals, time: Duration) -> Outcome {
    // As many connections as it takes: a client that waits for a connection would not be an
    // independent one.
    let client = Client::builder()
        .timeout(Duration::from_secs(120))
        .pool_max_idle_per_host(4096)
        .build();
    let client = client.expect("a client");
    let started = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    match arrivals {
        Arrivals::Closed { clients } => {
            for _ in 0..clients {
                let (client, targets, next) = (client.clone(), targets.to_vec(), Arc::clone(&next));
                tasks.spawn(async move {
                    let mut answers = Vec::new();
                    while started.elapsed() < time {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        answers.push(ask(&client, &targets, number, Instant::now()).await);
                    }
                    answers
                });
            }
        }
        Arrivals::Open { rate } => {
            let mut intended = started;
            while intended - started < time {
                sleep_until(intended.into()).await;
                let (client, targets) = (client.clone(), targets.to_vec());
                let number = next.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(async move { vec![ask(&client, &targets, number, intended).await] });
                let gap = -(1.0 - rand::random::<f64>()).ln() / rate;
                intended += Duration::from_secs_f64(gap);
            }
        }
    }
    let mut outcome = Outcome::new();
    while let Some(answers) = tasks.join_next().await {
        answers
            .expect("a client does not panic")
            .into_iter()
            .for_each(|answer| outcome.add(answer));
    }
    outcome.time = started.elapsed();
    outcome
}

async fn ask(client: &Client, targets: &[Target], number: usize, intended: Instant) -> Answer {
    let Target { url, photos } = &targets[number % targets.len()];
    let photo = photos[(number / targets.len()) % photos.len()].clone();
    let sent = client
        .post(url)
        .header("content-type", "image/jpeg")
        .body(photo)
        .send()
        .await;
    let (status, timing) = match sent {
        Ok(response) => {
            let status = response.status().as_u16();
            let timing = response
                .headers()
                .get("server-timing")
                .and_then(|value| value.to_str().ok());
            let timing = timing.unwrap_or_default().to_owned();
            if response.bytes().await.is_ok() {
                (status, timing)
            } else {
                (0, timing)
            }
        }
        Err(_) => (0, String::new()),
    };
    Answer {
        status,
        latency: intended.elapsed(),
        timing,
    }
}

/// Holds `count` connections open that send a request's body a little at a time, until `time` is
/// over. Returns how many of them the server had ended by then.
pub(crate) async fn dribble(address: &str, count: usize, time: Duration) -> usize {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let address = address.to_owned();
        tasks.spawn(async move {
            let head =
                "POST /v1/embed HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 100000\r\n\r\n";
            let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await else { return true };
            if stream.write_all(head.as_bytes()).await.is_err() {
                return true;
            }
            let until = Instant::now() + time;
            while Instant::now() < until {
                let mut answer = [0; 64];
                let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer)).await;
                if read.is_ok() || stream.write_all(b"slow").await.is_err() {
                    return true;
                }
            }
            false
        });
    }
    tasks
        .join_all()
        .await
        .into_iter()
        .filter(|ended| *ended)
        .count()
}
