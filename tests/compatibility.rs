//! What an earlier build wrote (`tests/golden/before`) opens unchanged: a converted model, a
//! gallery's folder, a PostgreSQL schema and a snapshot. Fingerprints are those of that build.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use dinoserve::{
    artifacts::ModelFile,
    gallery::{Gallery, GalleryConfig, OpenMode, open},
    http::HttpConfig,
    model::PositionRule,
    onnx::Precision,
};
use serde::Deserialize;
use serde_json::Value;

use crate::support::{
    focus_in, home,
    postgres::Postgres,
    program::{dinoserve, text},
    read_golden, scratch,
    server::{Server, new_gallery, ok, ok_bytes},
    sha256, skip, tiny_in,
};

const FINGERPRINTS: [(&str, Precision, &str); 8] = [
    (
        "tiny",
        Precision::Fp32,
        "bd6071af73ba11d6fea4b60827f498ecdf91571902e5a71936b9428ed3f99a99",
    ),
    (
        "tiny",
        Precision::Int8,
        "8333e9232e5d30c45d4093b19f3d2076b6c6a6c43412db6189d9b7a5624e807c",
    ),
    (
        "tiny-reg",
        Precision::Fp32,
        "559a656db396f64d355456ceecb2dcab8a38c9e5b95d557e1ed6852de7aeca5a",
    ),
    (
        "tiny-reg",
        Precision::Fp16,
        "a08f67a270947ce31de2ac9ffa046dee8da8c4b5211d4c8c3a4d200264fd1efd",
    ),
    (
        "tiny-swiglu-reg",
        Precision::Fp32,
        "bb42fbc1028b724e8a8bcd61de6a2f21eeb202a43279b434a4ad35e6239fabd0",
    ),
    (
        "tiny-swiglu-reg",
        Precision::Int8,
        "07ac922e74f2c88b65d3bef503a343f2ab436b427779f9f819c787662639a8df",
    ),
    (
        "tiny-swiglu-reg",
        Precision::Fp16,
        "f60ae3e83d87c76ca3609aca583d93730eef8323516c5a4df956d35007989476",
    ),
    (
        "dinov2-small-focus",
        Precision::Fp32,
        "12b19db1eef39f58f88f61b08024beba0079723c852385be762c85bde493bf55",
    ),
];

/// Members of answers that the earlier build did not have.
const ADDED: [&str; 2] = ["levels", "size"];

/// A request, and what the earlier build answered: JSON, or the SHA-256 of other content.
#[derive(Deserialize)]
struct Exchange {
    method: String,
    path: String,
    body: Option<Value>,
    answer: Value,
}

/// Returns the exchanges with one kind of store, `folder` or `postgres`.
fn exchanges(store: &str) -> Vec<Exchange> {
    let mut all: Value = serde_json::from_slice(&read_golden("before/answers.json")).unwrap();
    serde_json::from_value(all[store].take()).unwrap()
}

/// Unpacks an archive of the golden folder.
fn unpack(name: &str) -> PathBuf {
    let folder = scratch("before");
    let archive = Cursor::new(read_golden(&format!("before/{name}")));
    zip::ZipArchive::new(archive)
        .unwrap()
        .extract(&folder)
        .unwrap();
    folder
}

/// Opens the model that the earlier build converted.
fn model() -> ModelFile {
    let path = unpack("model.zip").join("models/tiny-reg/fp32-v1.onnx");
    ModelFile::open(&path, PositionRule::Hub).unwrap()
}

async fn server(gallery: Gallery) -> Server {
    Server::start_on(gallery, model(), HttpConfig::default()).await
}

/// Sends the requests again and compares the answers.
async fn assert_same_answers(server: &Server, exchanges: &[Exchange]) {
    assert_same_answers_without("", server, exchanges).await;
}

/// Does the same, but leaves out one member of JSON objects.
async fn assert_same_answers_without(member: &str, server: &Server, exchanges: &[Exchange]) {
    assert!(!exchanges.is_empty());
    for exchange in exchanges {
        let name = format!("{} {}", exchange.method, exchange.path);
        let method = exchange.method.parse().unwrap();
        let mut request = server.client.request(method, server.url(&exchange.path));
        request = request.header("accept", "application/json, */*;q=0.1");
        if let Some(body) = &exchange.body {
            request = request.json(body);
        }
        let answer = ok(request).await;
        let is_json = answer.headers()["content-type"] == "application/json";
        let content = answer.bytes().await.unwrap();
        let mut found = if is_json {
            serde_json::from_slice(&content).unwrap()
        } else {
            Value::from(sha256(&content))
        };
        let mut expected = exchange.answer.clone();
        for answer in [&mut found, &mut expected] {
            remove(answer, member);
        }
        assert_same(&name, &found, &expected);
    }
}

/// Removes a member from all objects in a value.
fn remove(value: &mut Value, member: &str) {
    match value {
        Value::Object(members) => {
            members.shift_remove(member);
            members.values_mut().for_each(|value| remove(value, member));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| remove(value, member)),
        _ => {}
    }
}

/// Compares JSON. Numbers that are no integers may differ by rounding of another CPU.
#[track_caller]
fn assert_same(name: &str, found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let kept = a
                .keys()
                .filter(|key| b.contains_key(*key) || !ADDED.contains(&key.as_str()));
            assert!(kept.eq(b.keys()), "{name}: {found} for {expected}");
            for (key, value) in b {
                assert_same(&format!("{name} {key}"), &a[key], value);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{name}");
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                assert_same(&format!("{name} {index}"), a, b);
            }
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let a = a.as_f64().unwrap();
            let b = b.as_f64().unwrap();
            assert!(
                (a - b).abs() <= 1e-4 * b.abs().max(1.0),
                "{name}: {a} for {b}"
            );
        }
        _ => assert_eq!(found, expected, "{name}"),
    }
}

#[test]
fn fingerprints_are_those_of_the_earlier_build() {
    for (name, precision, expected) in FINGERPRINTS {
        let model = if !name.starts_with("tiny") {
            if !home().sources(name).exists() {
                skip(&format!(
                    "the fingerprint of {name}: `make setup` fetches it"
                ));
                continue;
            }
            focus_in(precision)
        } else {
            tiny_in(name, "model.safetensors", precision)
        };
        assert_eq!(
            model.fingerprint.to_string(),
            expected,
            "{name} in {precision}"
        );
    }
}

#[test]
fn a_converted_model_of_the_earlier_build_is_as_it_was_written() {
    let output = dinoserve()
        .args(["models", "verify", "tiny-reg"])
        .env("DINOSERVE_HOME", unpack("model.zip"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(model().fingerprint.to_string(), FINGERPRINTS[2].2);
}

async fn open_folder(folder: &Path) -> Gallery {
    let config = GalleryConfig::default();
    open(folder.to_str().unwrap(), &config, OpenMode::Serve)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_folder_of_the_earlier_build_answers_the_same() {
    let folder = unpack("folder.zip");
    let server = server(open_folder(&folder).await).await;
    assert_same_answers(&server, &exchanges("folder")).await;
    let snapshot = ok_bytes(server.get("/v1/galleries/photos/snapshot")).await;
    assert_eq!(
        sha256(&snapshot),
        sha256(&read_golden("before/photos.gallery"))
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_snapshot_of_the_earlier_build_is_restored_whole() {
    let server = server(new_gallery().await).await;
    let snapshot = read_golden("before/photos.gallery");
    ok(server
        .put("/v1/galleries/photos/snapshot")
        .body(snapshot.clone()))
    .await;
    let mut exchanges = exchanges("folder");
    exchanges.retain(|exchange| exchange.path.contains("gallery=photos"));
    // A restore stores the items now.
    assert_same_answers_without("stored_ms", &server, &exchanges).await;
    let again = ok_bytes(server.get("/v1/galleries/photos/snapshot")).await;
    assert_eq!(sha256(&again), sha256(&snapshot));
    server.stopped().await;
}

#[tokio::test]
async fn a_postgresql_schema_of_the_earlier_build_answers_the_same() {
    let Some(postgres) = Postgres::start("a PostgreSQL schema of an earlier build") else {
        return;
    };
    let sql = String::from_utf8(read_golden("before/postgres.sql")).unwrap();
    postgres.connect().await.batch_execute(&sql).await.unwrap();
    let config = GalleryConfig::default();
    let store = open(&postgres.url(), &config, OpenMode::Serve)
        .await
        .unwrap();
    let server = server(store).await;
    assert_same_answers(&server, &exchanges("postgres")).await;
    server.stopped().await;
}
