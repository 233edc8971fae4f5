//! Load generators: clients that wait for their responses, and requests at a fixed rate.

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
    net::TcpStream,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::stats::median;

/// One kind of request.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: String,
    /// JPEG files, sent in turn.
    pub(crate) files: Arc<Vec<Bytes>>,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// This many clients, each of which sends its next request after its response.
    Closed { clients: usize },
    /// This many requests per second on average, however long responses take. The gaps are
    /// exponential, as those of independent clients.
    Open { rate: f64 },
}

/// The responses to a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Latencies of 2xx responses, from the intended start to the whole response, in microseconds.
    pub(crate) successful: Histogram<u64>,
    /// Latencies of 503 responses, in microseconds.
    pub(crate) rejected: Histogram<u64>,
    /// Number of responses by status; 0 stands for none.
    pub(crate) statuses: BTreeMap<u16, usize>,
    /// Times of each stage from `Server-Timing`, in milliseconds.
    pub(crate) stages: BTreeMap<String, Vec<f64>>,
    /// Time from the first request to the last response.
    pub(crate) time: Duration,
}

impl Outcome {
    fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid");
        Self {
            successful: histogram.clone(),
            rejected: histogram,
            statuses: BTreeMap::new(),
            stages: BTreeMap::new(),
            time: Duration::ZERO,
        }
    }

    fn add(&mut self, response: Response) {
        *self.statuses.entry(response.status).or_default() += 1;
        let micros = response.latency.as_micros() as u64;
        match response.status {
            200..300 => self.successful.saturating_record(micros),
            503 => self.rejected.saturating_record(micros),
            _ => {}
        }
        for entry in response.server_timing.split(", ") {
            if let Some((stage, ms)) = entry.split_once(";dur=")
                && let Ok(ms) = ms.parse()
            {
                self.stages.entry(stage.to_owned()).or_default().push(ms);
            }
        }
    }

    /// Returns the successful responses per second.
    pub(crate) fn rate(&self) -> f64 {
        self.successful.len() as f64 / self.time.as_secs_f64()
    }

    /// Returns a quantile of the latencies of successful responses, in milliseconds.
    pub(crate) fn latency(&self, quantile: f64) -> f64 {
        self.successful.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Returns the number of responses that are neither successful nor 503.
    pub(crate) fn failures(&self) -> usize {
        self.statuses
            .iter()
            .filter(|(status, _)| !matches!(status, 200..300 | 503))
            .map(|(_, count)| count)
            .sum()
    }

    /// Returns the median time of a stage, in milliseconds.
    pub(crate) fn stage(&self, name: &str) -> f64 {
        self.stages
            .get(name)
            .map_or(f64::NAN, |times| median(times))
    }
}

struct Response {
    /// HTTP status; 0 if there is no complete response.
    status: u16,
    latency: Duration,
    server_timing: String,
}

/// Sends requests to the targets in turn for `time`, and waits for all responses.
pub(crate) async fn load(targets: &[Target], arrivals: Arrivals, time: Duration) -> Outcome {
    // Connections are unlimited: a client that waits for one would not be independent.
    let client = Client::builder()
        .timeout(Duration::from_secs(120))
        .pool_max_idle_per_host(4096)
        .build()
        .expect("the client's configuration is valid");
    let started = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    match arrivals {
        Arrivals::Closed { clients } => {
            for _ in 0..clients {
                let client = client.clone();
                let targets = targets.to_vec();
                let next = Arc::clone(&next);
                tasks.spawn(async move {
                    let mut responses = Vec::new();
                    while started.elapsed() < time {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        responses.push(send(&client, &targets, number, Instant::now()).await);
                    }
                    responses
                });
            }
        }
        Arrivals::Open { rate } => {
            let mut intended = started;
            while intended - started < time {
                sleep_until(intended.into()).await;
                let client = client.clone();
                let targets = targets.to_vec();
                let number = next.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(async move { vec![send(&client, &targets, number, intended).await] });
                let gap = -(1.0 - rand::random::<f64>()).ln() / rate;
                intended += Duration::from_secs_f64(gap);
            }
        }
    }
    let mut outcome = Outcome::new();
    while let Some(responses) = tasks.join_next().await {
        responses
            .expect("a client does not panic")
            .into_iter()
            .for_each(|response| outcome.add(response));
    }
    outcome.time = started.elapsed();
    outcome
}

async fn send(client: &Client, targets: &[Target], number: usize, intended: Instant) -> Response {
    let Target { url, files } = &targets[number % targets.len()];
    let file = files[(number / targets.len()) % files.len()].clone();
    let sent = client
        .post(url)
        .header("content-type", "image/jpeg")
        .body(file)
        .send()
        .await;
    let mut status = 0;
    let mut server_timing = String::new();
    if let Ok(response) = sent {
        let received = response.status().as_u16();
        let timing = response
            .headers()
            .get("server-timing")
            .and_then(|value| value.to_str().ok());
        server_timing = timing.unwrap_or_default().to_owned();
        if response.bytes().await.is_ok() {
            status = received;
        }
    }
    Response {
        status,
        latency: intended.elapsed(),
        server_timing,
    }
}

/// Holds `count` connections open that send a request body four bytes at a time until `time` is
/// over. Returns how many of them the server closed by then.
pub(crate) async fn send_slowly(address: &str, count: usize, time: Duration) -> usize {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(closed_while_sending(address.to_owned(), time));
    }
    tasks
        .join_all()
        .await
        .into_iter()
        .filter(|closed| *closed)
        .count()
}

async fn closed_while_sending(address: String, time: Duration) -> bool {
    const HEAD: &str = "POST /v1/embed HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n\
                        content-length: 100000\r\n\r\n";
    let Ok(mut stream) = TcpStream::connect(&address).await else {
        return true;
    };
    if stream.write_all(HEAD.as_bytes()).await.is_err() {
        return true;
    }
    let end = Instant::now() + time;
    while Instant::now() < end {
        let mut response = [0; 64];
        let read = timeout(Duration::from_millis(200), stream.read(&mut response)).await;
        if read.is_ok() || stream.write_all(b"slow").await.is_err() {
            return true;
        }
    }
    false
}
