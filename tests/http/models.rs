//! Several models in one server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::artifacts::Home;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::families::model as family_model;
use crate::support::{
    process::Process,
    read_golden,
    server::{Server, Setup, floats, new_gallery, ok, ok_json, problem, source},
    tiny, tiny_home,
};

const PHOTO: &str = "dinov2-small-focus/coffee.png";
/// The default model, and two others.
const MODELS: [&str; 3] = ["tiny-reg", "tiny-swiglu-reg", "tiny"];

/// Starts a server with the first `count` of [`MODELS`] and a gallery. It can load the tiny ones.
async fn start(count: usize) -> Server {
    let home = Home::new(Some(tiny_home(&MODELS))).unwrap();
    let file = |name: &&str| tiny(name, "model.safetensors");
    Setup {
        source: Some(source(home)),
        gallery: Some(new_gallery().await),
        others: MODELS[1..count].iter().map(file).collect(),
        ..Setup::new(file(&MODELS[0]))
    }
    .start()
    .await
}

fn image() -> String {
    BASE64_STANDARD.encode(read_golden(PHOTO))
}

async fn served(server: &Server) -> Vec<String> {
    let models = ok_json(server.get("/v1/models")).await;
    let models = models["data"].as_array().unwrap().iter();
    models
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Asserts the status and a part of the detail of a problem.
async fn rejected(request: reqwest::RequestBuilder, status: u16, part: &str) {
    let (found, body) = problem(request).await;
    let detail = body["detail"].as_str().unwrap_or_default();
    assert_eq!(found, status, "{body}");
    assert!(detail.contains(part), "{detail:?} has no {part:?}");
}

#[tokio::test]
async fn every_way_to_name_a_model_reaches_it() {
    let server = start(3).await;
    assert_eq!(served(&server).await, MODELS);
    let listed = ok_json(server.get("/v1/models")).await;
    let image = image();
    let mut answers = Vec::new();
    for (index, name) in MODELS.into_iter().enumerate() {
        let about = &listed["data"][index];
        assert_eq!(about["default"], index == 0);
        assert_eq!(about["state"], "ready");
        assert!(about["memory_bytes"].is_u64() && about["weight_bytes"].as_u64() > Some(10_000));
        let one = ok_json(server.get(&format!("/v1/models/{name}"))).await;
        assert_eq!(one["fingerprint"], about["fingerprint"]);
        let part = Part::bytes(read_golden(PHOTO)).file_name("coffee.png");
        let form = Form::new().part("image", part).text("model", name);
        let requests = [
            server.post_file(&format!("/v1/embed?model={name}"), PHOTO),
            server
                .post("/v1/embed")
                .json(&json!({"image": image, "model": name})),
            server.post("/v1/embed").multipart(form),
        ];
        let mut vectors = Vec::new();
        for request in requests {
            let body = ok_json(request).await;
            assert_eq!(body["model"], name);
            assert_eq!(body["fingerprint"], about["fingerprint"]);
            vectors.push(floats(&body["data"][0]["embedding"]));
        }
        let openai = json!({"input": image, "model": name});
        let body = ok_json(server.post("/v1/embeddings").json(&openai)).await;
        assert_eq!(body["model"], name);
        vectors.push(floats(&body["data"][0]["embedding"]));
        assert!(vectors.iter().all(|vector| *vector == vectors[0]), "{name}");
        answers.push(vectors.swap_remove(0));
        for route in [
            "attention",
            "attention/stats",
            "similarity?patch=1,1",
            "pca",
            "objects",
        ] {
            let joint = if route.contains('?') { '&' } else { '?' };
            let path = format!("/v1/{route}{joint}model={name}");
            let request = server
                .post_file(&path, PHOTO)
                .header("accept", "application/json");
            assert_eq!(ok_json(request).await["model"], name, "{path}");
        }
    }
    assert_ne!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
    let default = ok_json(server.post_file("/v1/embed", PHOTO)).await;
    assert_eq!(default["model"], MODELS[0]);

    let list = r#"unknown model "vgg"; this server runs "tiny-reg", "tiny-swiglu-reg", "tiny""#;
    rejected(server.post_file("/v1/embed?model=vgg", PHOTO), 404, list).await;
    rejected(server.get("/v1/gallery?model=vgg"), 404, list).await;
    let openai = json!({"input": image, "model": "vgg"});
    let body = problem_of_openai(server.post("/v1/embeddings").json(&openai)).await;
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("\"tiny\""),
        "{body}"
    );
    server.stopped().await;
}

async fn problem_of_openai(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 404);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn what_is_stored_finds_its_model() {
    let server = start(2).await;
    let [first, second, _] = MODELS;
    let put = |id: &str, query: &str| {
        server
            .put(&format!("/v1/gallery/{id}?{query}"))
            .header("content-type", "image/png")
            .body(read_golden(PHOTO))
    };
    ok(put("a", "gallery=one")).await;
    ok(put("a", &format!("gallery=two&label=x&model={second}"))).await;
    // The gallery decides, not the default.
    ok(put("b", "gallery=two&label=x")).await;
    ok(put("c", &format!("gallery=two&label=y&model={second}"))).await;
    ok(put("d", "gallery=two&label=y")).await;
    let galleries = ok_json(server.get("/v1/galleries")).await;
    for (gallery, model) in galleries["data"]
        .as_array()
        .unwrap()
        .iter()
        .zip([first, second])
    {
        assert_eq!(gallery["model"], model);
        assert_eq!(gallery["takes_images"], true);
    }
    for route in ["knn?k=1", "classify?k=1"] {
        for (gallery, model) in [("one", first), ("two", second)] {
            let path = format!("/v1/{route}&gallery={gallery}");
            assert_eq!(
                ok_json(server.post_file(&path, PHOTO)).await["model"],
                model,
                "{path}"
            );
        }
    }
    let found = ok_json(server.post_file("/v1/knn?gallery=two&k=1", PHOTO)).await;
    assert!(
        found["neighbors"][0]["score"].as_f64() > Some(0.999),
        "{found}"
    );

    let names = format!("holds features of {second} (fingerprint ");
    let other = format!("gallery=two&model={first}");
    for request in [
        put("e", &other),
        server.post_file(&format!("/v1/knn?{other}"), PHOTO),
        server.post_file(&format!("/v1/classify?{other}"), PHOTO),
        server.get(&format!("/v1/knn?id=a&{other}")),
        server.get(&format!("/v1/gallery?{other}")),
        server.get(&format!("/v1/gallery/a?{other}")),
        server.get(&format!("/v1/gallery/a/thumbnail?{other}")),
        server.delete(&format!("/v1/gallery/a?{other}")),
        server.get(&format!("/v1/galleries/two?model={first}")),
        server.delete(&format!("/v1/galleries/two?model={first}")),
        server
            .post("/v1/probes")
            .json(&json!({"name": "p", "gallery": "two", "model": first})),
    ] {
        rejected(request, 409, &names).await;
    }
    ok(server.get(&format!("/v1/knn?id=a&gallery=two&model={second}"))).await;
    let of_first = ok_json(server.get(&format!("/v1/galleries?model={first}"))).await;
    let of_first = of_first["data"].as_array().unwrap();
    assert!(of_first.len() == 1 && of_first[0]["name"] == "one");

    // Bases.
    ok(server
        .put(&format!("/v1/bases/two?model={second}"))
        .header("content-type", "image/png")
        .body(read_golden(PHOTO)))
    .await;
    let pca = |query: &str| {
        let path = format!("/v1/pca?basis=two{query}");
        server
            .post_file(&path, PHOTO)
            .header("accept", "application/json")
    };
    assert_eq!(ok_json(pca("")).await["model"], second);
    let names = format!("the basis `two` is fitted on features of {second} (fingerprint ");
    for request in [
        pca(&format!("&model={first}")),
        server.post_file(&format!("/v1/bases/two?model={first}"), PHOTO),
        server.get(&format!("/v1/bases/two?model={first}")),
        server.delete(&format!("/v1/bases/two?model={first}")),
    ] {
        rejected(request, 409, &names).await;
    }
    assert_eq!(
        ok_json(server.post_file("/v1/bases/two", PHOTO)).await["images"],
        2
    );

    // Probes.
    let plan = json!({"name": "p", "gallery": "two", "wait": true});
    ok(server.post("/v1/probes").json(&plan)).await;
    let classify = |query: &str| server.post_file(&format!("/v1/classify?probe=p{query}"), PHOTO);
    assert_eq!(ok_json(classify("")).await["model"], second);
    let names = format!("the probe `p` takes features of {second} (fingerprint ");
    for request in [
        classify(&format!("&model={first}")),
        server.get(&format!("/v1/probes/p?model={first}")),
        server.delete(&format!("/v1/probes/p?model={first}")),
    ] {
        rejected(request, 409, &names).await;
    }

    // Without the model, only what needs none still works.
    ok(server.delete(&format!("/v1/models/{second}"))).await;
    let advice = format!("start with --model {second}, or load it with POST /v1/models/load");
    for request in [
        put("e", "gallery=two"),
        server.post_file("/v1/knn?gallery=two", PHOTO),
        pca(""),
        classify(""),
    ] {
        rejected(request, 409, &advice).await;
    }
    ok(server.get("/v1/knn?id=a&gallery=two")).await;
    ok(server.delete("/v1/gallery/a?gallery=two")).await;
    let gallery = ok_json(server.get("/v1/galleries/two")).await;
    assert_eq!(gallery["takes_images"], false);
    server.stopped().await;
}

#[tokio::test]
async fn each_model_has_its_own_patches_and_sizes() {
    let setup = Setup {
        others: vec![family_model("tiny-dinov3", "hub_pretrain.pth")],
        ..Setup::tiny()
    };
    let server = setup.start().await;
    for (model, grid) in [("tiny-reg", [16, 16]), ("tiny-dinov3", [14, 14])] {
        let path = format!("/v1/embed?model={model}&size=224");
        let body = ok_json(server.post_file(&path, PHOTO)).await;
        assert_eq!(body["data"][0]["grid"], json!(grid), "{model}");
    }
    let path = "/v1/embed?model=tiny-dinov3&size=210";
    rejected(server.post_file(path, PHOTO), 422, "16").await;
    server.stopped().await;
}

#[tokio::test]
async fn a_new_gallery_takes_the_served_model_of_its_fingerprint() {
    let server = start(2).await;
    let embed = format!("/v1/embed?model={}", MODELS[1]);
    let made = ok_json(server.post_file(&embed, PHOTO)).await;
    let item = json!({
        "vector": made["data"][0]["embedding"],
        "fingerprint": made["fingerprint"],
        "gallery": "new",
    });
    ok(server.put("/v1/gallery/a").json(&item)).await;
    let gallery = ok_json(server.get("/v1/galleries/new")).await;
    assert_eq!(gallery["model"], MODELS[1]);
    server.stopped().await;
}

/// Returns the resident memory of the program in bytes, when the allocator has returned what is
/// free.
async fn settled_memory(process: &Process) -> f64 {
    tokio::time::sleep(Duration::from_secs(15)).await;
    let process = procfs::process::Process::new(process.id() as i32).unwrap();
    (process.statm().unwrap().resident * procfs::page_size()) as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_a_hundred_times_and_no_request_fails() {
    let [first, second, third] = MODELS;
    let both = format!("{first},{second}");
    let process = Process::start_in(&tiny_home(&MODELS), &["--offline", "--model", &both]);
    let client = crate::support::client::client();
    let url = |path: &str| format!("{}{path}", process.url);
    let embed = |model: &str| {
        let request = client.post(url(&format!("/v1/embed?model={model}")));
        let request = request.header("content-type", "image/png");
        request.body(read_golden(PHOTO))
    };
    let turn = async || {
        let load = client.post(url("/v1/models/load"));
        ok(load.json(&json!({"model": third}))).await;
        ok(embed(third)).await;
        let gone = ok_json(client.delete(url(&format!("/v1/models/{third}")))).await;
        assert_eq!(
            gone,
            json!({"id": third, "object": "model", "deleted": true})
        );
    };
    for _ in 0..20 {
        ok(embed(first)).await;
        ok(embed(second)).await;
    }
    turn().await;
    let before = settled_memory(&process).await;

    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients = [embed(first), embed(second)].map(|request| {
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                ok(request.try_clone().unwrap()).await;
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for _ in 0..100 {
        turn().await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("every request was answered with 200");
    }
    assert!(answered.load(Ordering::Relaxed) > 100);
    let grown = settled_memory(&process).await / before;
    assert!(grown < 1.05, "the memory grew to {grown} of what it was");
}

#[tokio::test]
async fn an_unload_waits_for_requests_that_have_begun() {
    let server = start(2).await;
    let second = MODELS[1];
    let running: Vec<_> = (0..12)
        .map(|_| {
            let request = server.post_file(&format!("/v1/embed?model={second}&size=448"), PHOTO);
            tokio::spawn(request.send())
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let gone = ok(server.delete(&format!("/v1/models/{second}"))).await;
    drop(gone);
    let mut statuses = Vec::new();
    for request in running {
        statuses.push(request.await.unwrap().unwrap().status().as_u16());
    }
    // A request that came after the unload began does not find the model.
    assert!(
        statuses.iter().all(|status| [200, 404].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&200), "none had begun: {statuses:?}");
    let metrics = ok(server.get("/metrics")).await.text().await.unwrap();
    assert!(!metrics.contains(&format!("dinoserve_model_ready{{model=\"{second}\"}}")));
    server.stopped().await;
}

#[tokio::test]
async fn what_must_stay_is_not_unloaded() {
    let server = start(2).await;
    let [first, second, third] = MODELS;
    let unload = |name: &str| server.delete(&format!("/v1/models/{name}"));
    let load = |name: &str, default: bool| {
        let body = json!({"model": name, "default": default});
        server.post("/v1/models/load").json(&body)
    };
    rejected(
        unload("vgg"),
        404,
        "this server runs \"tiny-reg\", \"tiny-swiglu-reg\"",
    )
    .await;
    rejected(unload("%FF"), 400, "the path is not valid").await;
    rejected(
        unload(first),
        409,
        "is the default model and cannot be unloaded; make another",
    )
    .await;
    ok(load(third, false)).await;
    // There are three, which is the limit of these tests; a served one may still be replaced.
    rejected(load("tiny-dino1", false), 409, "its maximum of 3 models").await;
    ok(load(second, true)).await;
    assert_eq!(served(&server).await, [second, first, third]);
    ok(unload(first)).await;
    ok(unload(third)).await;
    rejected(unload(second), 409, "it is the only one").await;
    server.stopped().await;
}
