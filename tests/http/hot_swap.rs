//! Replacing the model while requests run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dinoserve::{
    artifacts::{Home, ModelFile},
    model::PositionRule,
    onnx::Precision,
};
use serde_json::{Value, json};

use crate::support::{
    server::{Server, Setup, floats, new_gallery, ok, ok_json, problem, source},
    tiny_home,
};

/// Starts a server with the first model; it can load all others.
async fn start(home: &Path, first: &str) -> Server {
    let home = Home::new(Some(home.to_owned())).unwrap();
    let paths = home.model(first, Precision::Fp32);
    let model = ModelFile::open(&paths.model, PositionRule::Hub).unwrap();
    Setup {
        source: Some(source(home)),
        gallery: Some(new_gallery().await),
        ..Setup::new(model)
    }
    .start()
    .await
}

fn load(server: &Server, model: &str) -> reqwest::RequestBuilder {
    server
        .post("/v1/models/load")
        .json(&json!({"model": model, "default": true}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_takes_over_and_no_request_fails() {
    let server = start(&tiny_home(&["tiny-reg", "tiny-swiglu-reg"]), "tiny-reg").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let client = server.client.clone();
            let url = server.url("/v1/embed?tokens=true&encoding_format=base64");
            let stop = Arc::clone(&stop);
            let image = crate::support::read_golden("dinov2-small-focus/coffee.png");
            tokio::spawn(async move {
                let mut fingerprints = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let request = client
                        .post(&url)
                        .header("content-type", "image/png")
                        .body(image.clone());
                    let body = ok_json(request).await;
                    assert!(body["data"][0]["tokens"].is_string(), "{body}");
                    fingerprints.push(body["fingerprint"].as_str().unwrap().to_owned());
                }
                fingerprints
            })
        })
        .collect();
    let first = ok_json(server.get("/v1/models")).await["data"][0].clone();
    let mut served = BTreeMap::from([(
        "tiny-reg",
        first["fingerprint"].as_str().unwrap().to_owned(),
    )]);
    for model in [
        "tiny-swiglu-reg",
        "tiny-reg",
        "tiny-swiglu-reg",
        "tiny-reg",
        "tiny-reg",
    ] {
        let answer: Value = ok_json(load(&server, model)).await;
        let before = served.get(model).map(String::as_str);
        assert_eq!(answer["fingerprint_before"].as_str(), before);
        assert_eq!(answer["model"]["id"], model);
        assert_eq!(answer["model"]["provider"], "cpu");
        assert_eq!(answer["model"]["default"], true);
        let fingerprint = answer["model"]["fingerprint"].as_str().unwrap();
        served.insert(model, fingerprint.to_owned());
        assert_eq!(
            ok_json(server.get("/v1/models")).await["data"][0],
            answer["model"]
        );
        let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
        let infos: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("dinoserve_model_info{"))
            .collect();
        // Tests of other servers may run in this process, so other models may be listed, too.
        assert_eq!(infos.len(), 2, "{infos:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = BTreeSet::new();
    let mut count = 0;
    for client in clients {
        let fingerprints = client.await.expect("every request was answered with 200");
        count += fingerprints.len();
        answered.extend(fingerprints);
    }
    let served = BTreeSet::from_iter(served.into_values());
    assert_eq!(answered, served, "both models answered");
    assert!(count > 50, "{count} requests");
    server.stopped().await;
}

#[tokio::test]
async fn galleries_of_the_old_model_are_kept_and_recognized() {
    let server = start(&tiny_home(&["tiny-reg", "tiny"]), "tiny-reg").await;
    let put = |id: &str| {
        let body = crate::support::read_golden("dinov2-small-focus/coffee.png");
        server
            .put(&format!("/v1/gallery/{id}"))
            .header("content-type", "image/png")
            .body(body)
    };
    ok(put("a")).await;
    ok(load(&server, "tiny")).await;
    ok(put("b")).await;
    ok(server.delete("/v1/models/tiny-reg")).await;
    let (status, body) = problem(put("c")).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("conflict")));
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.contains("start with --model tiny-reg, or load it"),
        "{detail}"
    );
    ok(server.get("/v1/gallery/a")).await;
    ok(load(&server, "tiny-reg")).await;
    ok(put("c")).await;
    server.stopped().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_served_changes_nothing() {
    let home = tiny_home(&["tiny-reg", "tiny", "tiny-swiglu-reg"]);
    // One has a truncated graph, one other weights than its description says.
    let folder = home.join("models");
    let graph = std::fs::read_dir(folder.join("tiny"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let graph = graph
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "onnx")
        })
        .unwrap();
    let bytes = std::fs::read(&graph).unwrap();
    std::fs::write(&graph, &bytes[..bytes.len() / 2]).unwrap();
    let data = std::fs::read_dir(folder.join("tiny-swiglu-reg"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let data = data
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "data")
        })
        .unwrap();
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&data, &bytes).unwrap();

    let server = start(&home, "tiny-reg").await;
    let embed = async || {
        let body = ok_json(server.post_file("/v1/embed", "dinov2-small-focus/coffee.png")).await;
        (
            body["fingerprint"].clone(),
            floats(&body["data"][0]["embedding"]),
        )
    };
    let before = embed().await;
    for (model, expected) in [
        ("tiny", "it is damaged"),
        ("tiny-swiglu-reg", "it is damaged"),
        ("dinov2-large", "--offline"),
        ("nonsense", "there is no model \"nonsense\""),
        ("../../etc/passwd", "there is no model"),
    ] {
        let (status, body) = problem(load(&server, model)).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (422, Some("model_rejected")),
            "{model}: {body}"
        );
        assert!(
            body["detail"].as_str().unwrap().contains(expected),
            "{model}: {body}"
        );
    }
    for (body, status) in [
        ("{}", 400),
        ("[]", 400),
        ("{\"model\": 1}", 400),
        ("{\"model\": \"tiny-reg\", \"precision\": \"fp8\"}", 422),
    ] {
        assert_eq!(
            problem(server.post("/v1/models/load").body(body)).await.0,
            status,
            "{body}"
        );
    }
    assert_eq!(
        problem(server.post("/v1/models/load").body(" ".repeat(100_000)))
            .await
            .0,
        413
    );
    assert_eq!(embed().await, before, "the old one is served on");
    server.stopped().await;
}

#[tokio::test]
async fn one_model_is_loaded_at_a_time() {
    let server = start(&tiny_home(&["tiny-reg", "tiny"]), "tiny-reg").await;
    let loads = futures_util::future::join_all((0..4).map(|_| load(&server, "tiny").send())).await;
    let statuses: Vec<u16> = loads
        .into_iter()
        .map(|answer| answer.unwrap().status().as_u16())
        .collect();
    assert!(
        statuses.iter().all(|status| [200, 409].contains(status)),
        "{statuses:?}"
    );
    assert!(
        statuses.contains(&200) && statuses.contains(&409),
        "{statuses:?}"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_server_that_cannot_load_models_says_so() {
    let server = Server::tiny().await;
    let (status, body) = problem(load(&server, "tiny")).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (422, Some("model_rejected"))
    );
    server.stopped().await;
}
