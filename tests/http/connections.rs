//! Slow, idle and many clients, at the level of connections.

use std::{
    io::{self, Cursor},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::http::ServeConfig;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::support::{
    process::Process,
    read_golden,
    server::{Server, Setup, http2_request, ok},
    until, wave,
};

const COFFEE: &str = "dinov2-small-focus/coffee.png";

async fn start(change: impl FnOnce(&mut ServeConfig)) -> Server {
    let mut setup = Setup::tiny();
    change(&mut setup.serve);
    setup.start().await
}

/// Reads until the connection is closed or reset.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("it is closed");
    assert!(ended.is_ok() || ended.unwrap_err().kind() == io::ErrorKind::ConnectionReset);
    answer
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = start(|config| config.header_timeout = Duration::from_secs(1)).await;
    // One that never sends anything, and one that sent one request.
    for first in ["", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        let began = Instant::now();
        let answer = read_to_end(&mut stream).await;
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), !first.is_empty());
        assert!(
            began.elapsed() > Duration::from_millis(500),
            "it had its time"
        );
    }
    server.stopped().await;
}

/// An HTTP/2 client that answers pings could keep its connection for ever.
#[tokio::test]
async fn an_idle_http2_connection_is_closed_although_it_answers_pings() {
    const PING: u8 = 6;
    const GO_AWAY: u8 = 7;
    let server = start(|config| config.header_timeout = Duration::from_millis(400)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut pings = 0;
    let closed = async {
        let mut said_so = false;
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return said_so;
            }
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            match head[3] {
                PING if head[4] == 0 => {
                    pings += 1;
                    head[4] = 1;
                    let _ = stream.write_all(&[&head[..], &payload].concat()).await;
                }
                GO_AWAY => said_so = true,
                _ => {}
            }
        }
    };
    assert!(
        timeout(Duration::from_secs(10), closed)
            .await
            .expect("it is closed"),
        "with a word of farewell"
    );
    assert!(pings > 0, "the server sends pings");
    server.stopped().await;
}

/// The client opens a window of 0 bytes or of 1 byte, and answers pings.
#[tokio::test]
async fn an_http2_client_that_reads_nothing_is_disconnected() {
    for window in [0, 1] {
        let server = start(|config| {
            config.write_timeout = Duration::from_secs(1);
            config.header_timeout = Duration::from_millis(400);
        })
        .await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(&http2_request(
                window,
                b"\x82\x86\x04\x0d/openapi.json\x01\x01x",
            ))
            .await
            .unwrap();
        let mut kinds = Vec::new();
        let closed = async {
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                kinds.push(head[3]);
                let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                stream.read_exact(&mut payload).await.unwrap();
                let is_ping = head[3] == 6;
                let is_settings = head[3] == 4;
                if (is_ping || is_settings) && head[4] == 0 {
                    head[4] = 1;
                    let answer = if is_ping { payload } else { Vec::new() };
                    head[2] = answer.len() as u8;
                    let _ = stream.write_all(&[&head[..], &answer].concat()).await;
                }
            }
        };
        timeout(Duration::from_secs(10), closed)
            .await
            .expect("it is closed");
        assert!(
            kinds.contains(&1),
            "it was answered, as far as it took: {kinds:?}"
        );
        server.stopped().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_disconnected() {
    let server = start(|config| config.write_timeout = Duration::from_secs(1)).await;
    // A small receive buffer, so that the response does not fit into the buffers.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    // The response is larger than a kernel buffers: 4 MB by Linux's default.
    let mut image = Cursor::new(Vec::new());
    let format = image::ImageFormat::Png;
    wave(14, 14).write_to(&mut image, format).unwrap();
    let image = BASE64_STANDARD.encode(image.get_ref());
    let body = json!({"images": vec![image; 32], "tokens": true, "size": 518, "resize": "squash"});
    let text = body.to_string();
    let head = format!(
        "POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut first = [0; 64];
    assert!(
        timeout(Duration::from_secs(60), stream.read(&mut first))
            .await
            .unwrap()
            .unwrap()
            > 0
    );
    assert!(
        first.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&first)
    );
    sleep(Duration::from_secs(4)).await;
    let rest = read_to_end(&mut stream).await;
    let expected = ok(server.post("/v1/embed").json(&body)).await;
    let length = expected.content_length().unwrap();
    assert!(length > 16 << 20, "{length} bytes may fit into a buffer");
    assert!(
        (rest.len() as u64) < length,
        "{} of {length} bytes came",
        rest.len()
    );
    server.stopped().await;
}

#[tokio::test]
async fn connections_have_a_limit() {
    let server = start(|config| config.max_connections = 4).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
        open.push(stream);
    }
    let mut one_more = TcpStream::connect(server.address).await.unwrap();
    assert!(
        read_to_end(&mut one_more).await.is_empty(),
        "closed without a word"
    );
    open.pop();
    until(async || server.get("/healthz").send().await.is_ok()).await;
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_do_not_block_other_clients() {
    const MANY: usize = 2000;
    // This process holds the client ends.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let process = Process::start(&["--header-timeout", "8"]);
    let address = process.url.trim_start_matches("http://").to_owned();
    let mut idle = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    until(async || process.metric("dinoserve_connections") >= MANY as f64).await;
    let client = crate::support::client::client();
    let embed = || {
        let request = client
            .post(format!("{}/v1/embed?size=112", process.url))
            .header("content-type", "image/png");
        request.body(read_golden(COFFEE))
    };
    for _ in 0..10 {
        let began = Instant::now();
        ok(embed()).await;
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    // They are closed in time, although their clients never close them.
    until(async || process.metric("dinoserve_connections") < 10.0).await;
    ok(embed()).await;
}
