//! Snapshots over HTTP: saved and restored, whole or not at all.

use std::time::Duration;

use dinoserve::http::HttpConfig;
use reqwest::Body;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    read_golden,
    server::{Server, new_gallery, ok, ok_bytes, ok_json, problem},
    tiny,
};

async fn server(config: HttpConfig) -> Server {
    Server::start_on(
        new_gallery().await,
        tiny("tiny-reg", "model.safetensors"),
        config,
    )
    .await
}

fn vectors(from: usize, count: usize) -> Value {
    let vector = |n: usize| {
        (0..64)
            .map(|d| ((n * 64 + d) as f32).sin())
            .collect::<Vec<f32>>()
    };
    let item = |n: usize| {
        let label = format!("l{}", n % 3);
        json!({"id": n.to_string(), "vector": vector(n), "label": label, "metadata": {"n": n}})
    };
    (from..from + count).map(item).collect()
}

async fn everything(server: &Server, gallery: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page =
            ok_json(server.get(&format!("/v1/gallery?limit=50&gallery={gallery}{cursor}"))).await;
        for item in page["items"].as_array().unwrap() {
            let id = item["id"].as_str().unwrap();
            let stored =
                ok_json(server.get(&format!("/v1/gallery/{id}?vector=true&gallery={gallery}")))
                    .await;
            items.push(json!([
                stored["id"],
                stored["label"],
                stored["metadata"],
                stored["vector"]
            ]));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_restored_on_another_server_whole_or_not_at_all() {
    // The body limit of other requests does not apply.
    let config = HttpConfig {
        max_body_bytes: 256 << 10,
        ..HttpConfig::default()
    };
    let first = server(config.clone()).await;
    let second = server(config).await;
    for batch in 0..20 {
        ok(first
            .post("/v1/gallery")
            .json(&json!({"items": vectors(batch * 60, 60)})))
        .await;
    }
    let photo = read_golden("dinov2-small-focus/chelsea.png");
    let small = image::load_from_memory(&photo).unwrap().thumbnail(200, 200);
    let mut file = std::io::Cursor::new(Vec::new());
    small.write_to(&mut file, image::ImageFormat::Png).unwrap();
    ok(first
        .put("/v1/gallery/photo")
        .header("content-type", "image/png")
        .body(file.into_inner()))
    .await;
    let response = ok(first.get("/v1/galleries/default/snapshot")).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/octet-stream"
    );
    assert_eq!(
        response.headers()["content-disposition"],
        "attachment; filename=\"default.gallery\""
    );
    let snapshot = response.bytes().await.unwrap();
    assert!(snapshot.len() > 256 << 10, "{}", snapshot.len());

    let path = "/v1/galleries/copy/snapshot";
    let restored = ok_json(second.put(path).body(snapshot.clone())).await;
    assert_eq!(
        restored,
        json!({"gallery": "copy", "items": 1201, "bytes": snapshot.len()})
    );
    let expected = everything(&first, "default").await;
    assert_eq!(expected.len(), 1201);
    assert_eq!(everything(&second, "copy").await, expected);
    let thumbnail = ok_bytes(first.get("/v1/gallery/photo/thumbnail")).await;
    assert_eq!(
        ok_bytes(second.get("/v1/gallery/photo/thumbnail?gallery=copy")).await,
        thumbnail
    );

    // A damaged or truncated file changes nothing.
    let mut damaged = snapshot.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (body, detail) in [
        (damaged, "damaged"),
        (snapshot[..snapshot.len() - 1].to_vec(), "it ends early"),
    ] {
        let (status, body) = problem(second.put(path).body(body)).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["detail"].as_str().unwrap().contains(detail), "{body}");
    }
    ok(second.delete("/v1/gallery/5?gallery=copy")).await;
    assert_eq!(
        ok_json(second.get("/v1/galleries/copy")).await["items"],
        1200
    );
    let all = ok_json(second.get("/v1/galleries")).await;
    assert_eq!(
        all["data"].as_array().unwrap().len(),
        1,
        "nothing is left aside: {all}"
    );
    // A good file, sent in pieces, replaces the gallery.
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = snapshot
        .chunks(10_000)
        .map(|piece| Ok(piece.to_vec()))
        .collect();
    ok(second
        .put(path)
        .body(Body::wrap_stream(futures_util::stream::iter(pieces))))
    .await;
    assert_eq!(everything(&second, "copy").await, expected);
}

#[tokio::test]
async fn a_stalled_snapshot_upload_is_aborted() {
    let config = HttpConfig {
        request_timeout: Duration::from_secs(1),
        snapshot_idle: Duration::from_secs(3),
        ..HttpConfig::default()
    };
    let server = server(config).await;
    ok(server
        .post("/v1/gallery")
        .json(&json!({"items": vectors(0, 50)})))
    .await;
    let snapshot = ok_bytes(server.get("/v1/galleries/default/snapshot")).await;
    // Slower than the limit of other requests, and never complete.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PUT /v1/galleries/slow/snapshot HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        snapshot.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    for piece in snapshot[..1000].chunks(200) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        slow.write_all(piece).await.unwrap();
    }
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("--snapshot-idle-timeout"),
        "{answer}"
    );
    let all = ok_json(server.get("/v1/galleries")).await;
    assert_eq!(
        all["data"].as_array().unwrap().len(),
        1,
        "nothing is left aside: {all}"
    );
}
