//! A shutdown loses no response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dinoserve::http::{HttpConfig, Stop};
use tokio::net::TcpStream;

use crate::support::{
    focus,
    process::Process,
    read_golden,
    server::{Server, Setup, floats, ok, problem},
};

const CHELSEA: &str = "dinov2-small-focus/chelsea.png";

#[tokio::test]
async fn accepted_requests_are_answered_when_the_server_stops() {
    let mut server = Server::start(focus().clone(), HttpConfig::default()).await;
    let requests: Vec<_> = (0..6)
        .map(|_| tokio::spawn(server.post_file("/v1/embed", CHELSEA).send()))
        .collect();
    // All are queued or running when the shutdown begins.
    tokio::time::sleep(Duration::from_millis(150)).await;
    server.stop();
    for request in requests {
        let response = request.await.unwrap().expect("an answer");
        assert_eq!(response.status(), 200);
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(floats(&body["data"][0]["embedding"]).len(), 384);
    }
    let address = server.address;
    server.stopped().await;
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_shutdown_is_announced_before_it_begins() {
    let mut setup = Setup::tiny();
    setup.serve.shutdown_delay = Duration::from_secs(2);
    let mut server = setup.start().await;
    ok(server.get("/readyz")).await;
    server.stop_as(Stop::Gracefully);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (status, body) = problem(server.get("/readyz")).await;
    assert_eq!(
        (status, body["detail"].as_str()),
        (503, Some("the server is stopping"))
    );
    ok(server.get("/healthz")).await;
    // Clients are still served, on old and new connections, and their connections are closed
    // afterward.
    for _ in 0..2 {
        let response = ok(server.post_file("/v1/embed", CHELSEA)).await;
        assert_eq!(response.headers()["connection"], "close");
    }
    let address = server.address;
    tokio::time::timeout(Duration::from_secs(10), server.stopped())
        .await
        .expect("a stop");
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the port is closed"
    );
}

/// The number of a client's answered requests, and why the others failed.
#[derive(Default)]
struct Outcome {
    answered: usize,
    /// Connections closed before any byte of a response. Either the request was not accepted, or
    /// the server's count of requests does not agree.
    closed: usize,
    failed: Vec<String>,
}

/// Sends one request after the other on a kept connection, until the port is closed.
async fn client(url: String, stopped: Arc<AtomicBool>) -> Outcome {
    // Retries of the client library would hide lost requests.
    let client = crate::support::client::builder()
        .retry(reqwest::retry::never())
        .build()
        .unwrap();
    let image = read_golden(CHELSEA);
    let mut outcome = Outcome::default();
    loop {
        let request = client
            .post(&url)
            .header("content-type", "image/png")
            .body(image.clone());
        match request.send().await {
            Ok(response) if response.status() == 200 => match response.bytes().await {
                Ok(body) if body.len() > 100 => outcome.answered += 1,
                other => outcome
                    .failed
                    .push(format!("a body that ends early: {other:?}")),
            },
            Ok(response) => outcome.failed.push(response.status().to_string()),
            // Without a connection the request was not accepted.
            Err(error) if error.is_connect() => {
                assert!(stopped.load(Ordering::Acquire), "{error:?} before the stop");
                return outcome;
            }
            Err(error) => {
                assert!(stopped.load(Ordering::Acquire), "{error:?} before the stop");
                outcome.closed += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing_twenty_times() {
    for round in 0..20 {
        let mut process = Process::start(&[]);
        let stopped = Arc::new(AtomicBool::new(false));
        let url = format!("{}/v1/embed?size=112", process.url);
        let clients: Vec<_> = (0..16)
            .map(|_| tokio::spawn(client(url.clone(), Arc::clone(&stopped))))
            .collect();
        tokio::time::sleep(Duration::from_millis(200 + 13 * round)).await;
        stopped.store(true, Ordering::Release);
        process.signal("TERM");
        let mut answered = 0;
        let mut closed = 0;
        for client in clients {
            let outcome = client.await.unwrap();
            assert!(
                outcome.failed.is_empty(),
                "round {round}: {:?}",
                outcome.failed
            );
            answered += outcome.answered;
            closed += outcome.closed;
        }
        assert!(answered > 16, "round {round}: {answered} answers");
        // A connection made while the port closes is accepted by no server.
        assert!(
            closed <= 4,
            "round {round}: {closed} connections were closed without an answer"
        );
        let ended = move || (process.wait(Duration::from_secs(30)), process.log());
        let (status, log) = tokio::task::spawn_blocking(ended).await.unwrap();
        assert_eq!(status.code(), Some(0), "round {round}");
        assert!(!log.contains("cut off"), "round {round}: {log}");
        // Each accepted request has a line in the log, and a response at a client.
        let accepted = log
            .lines()
            .filter(|line| line.contains("\"route\":\"/v1/embed\""))
            .count();
        assert_eq!(accepted, answered, "round {round}: accepted and answered");
    }
}
