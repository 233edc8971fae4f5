//! Probes over HTTP: trained on galleries, used, replaced, canceled and rejected.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dinoserve::{
    features::{
        pool::Pooling,
        probe::{Examples, TrainingOptions, train},
    },
    gallery::{
        Binding, DocumentKind, Gallery, GalleryConfig, GalleryName, ItemId, Label, Metadata,
        NewItem, OpenMode, open,
    },
    http::HttpConfig,
    model::ModelId,
    vision::{Preprocessing, ResizeMode},
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{
    difference, focus, read_golden, scratch,
    server::{BadRequest, Server, assert_problem, floats, new_gallery, ok, ok_json, problem},
    tiny,
};

/// Width of a token of the tiny models.
const DIM: usize = 64;

fn name(name: &str) -> GalleryName {
    GalleryName::new(name).unwrap()
}

fn binding(fingerprint: &str) -> Binding {
    Binding {
        model: ModelId {
            name: "tiny-reg".to_owned(),
            fingerprint: (fingerprint.to_owned()).into(),
        },
        dim: DIM,
        pooling: Pooling::Cls,
        layers: 1,
        preprocessing: Preprocessing::new(ResizeMode::Crop, 224),
    }
}

/// Returns made-up features `[CLS, mean]`: noise, plus a direction of the class with this length.
fn features(index: usize, class: usize, signal: f32) -> Vec<f32> {
    let mut state = (index as u32 + 1).wrapping_mul(2_654_435_761);
    let noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    let mut features: Vec<f32> = std::iter::repeat_with(noise).take(2 * DIM).collect();
    features[class] += signal;
    features[DIM + class] += signal;
    features
}

fn item(index: usize, label: Option<&str>, features: Option<Vec<f32>>) -> NewItem {
    let mut vector = vec![0.0; DIM];
    vector[index % DIM] = 1.0;
    NewItem {
        id: ItemId::new(format!("item {index}")).unwrap(),
        label: label.map(|label| Label::new(label).unwrap()),
        metadata: Metadata::parse(&json!({"even": index.is_multiple_of(2)}).to_string()).unwrap(),
        vector,
        features,
        thumbnail: None,
    }
}

/// Stores `count` items of the classes `c0`, `c1`, …
async fn fill(
    store: &Gallery,
    gallery: &str,
    fingerprint: &str,
    count: usize,
    classes: usize,
    signal: f32,
) {
    let one = |index: usize| {
        let class = index % classes;
        item(
            index,
            Some(&format!("c{class}")),
            Some(features(index, class, signal)),
        )
    };
    store
        .put(
            &name(gallery),
            &binding(fingerprint),
            (0..count).map(one).collect(),
        )
        .await
        .unwrap();
}

async fn server_on(store: &Gallery) -> Server {
    Server::start_on(
        store.clone(),
        tiny("tiny-reg", "model.safetensors"),
        HttpConfig::default(),
    )
    .await
}

fn train_on(server: &Server, plan: Value) -> RequestBuilder {
    server.post("/v1/probes").json(&plan)
}

fn classify(server: &Server, probe: &str, vector: &[f32]) -> RequestBuilder {
    server
        .post(&format!("/v1/classify?probe={probe}"))
        .json(&json!({"vector": vector}))
}

#[tokio::test]
async fn a_probe_learns_the_labels_of_a_gallery() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    let fingerprint = server.engine().fingerprint().to_owned();
    fill(&store, "things", &fingerprint, 90, 3, 1.0).await;
    let others = (0..9).map(|index| match index {
        0..5 => item(1000 + index, None, Some(features(index, 0, 1.0))),
        _ => item(1000 + index, Some("c1"), None),
    });
    store
        .put(&name("things"), &binding(&fingerprint), others.collect())
        .await
        .unwrap();

    let plan = json!({"name": "p", "gallery": "things", "l2": 0.5, "wait": true});
    let trained = ok_json(train_on(&server, plan)).await;
    assert_eq!(
        (&trained["name"], &trained["state"]),
        (&json!("p"), &json!("ready"))
    );
    let about = &trained["probe"];
    assert_eq!(about["classes"], json!(["c0", "c1", "c2"]));
    assert_eq!(
        (
            &about["examples"],
            &about["unlabelled"],
            &about["without_features"]
        ),
        (&json!(90), &json!(5), &json!(4))
    );
    assert_eq!(
        (&about["l2"], &about["converged"], &about["width"]),
        (&json!(0.5), &json!(true), &json!(128))
    );
    assert_eq!(
        (&about["features"], &about["fingerprint"]),
        (&json!("cls_mean"), &json!(fingerprint))
    );
    assert!(about["accuracy"].as_f64().unwrap() > 0.8, "{about}");
    assert_eq!(ok_json(server.get("/v1/probes/p")).await, trained);
    assert_eq!(
        ok_json(server.get("/v1/probes")).await,
        json!({"data": [{"name": "p", "state": "ready"}]})
    );

    // The library trains on the same examples in the same order.
    let mut examples = Examples::new(2 * DIM, 10);
    (0..90).for_each(|index| {
        examples
            .add(features(index, index % 3, 1.0), &format!("c{}", index % 3))
            .unwrap();
    });
    let options = TrainingOptions {
        l2: Some(0.5),
        ..TrainingOptions::default()
    };
    let expected = train(&examples, &options, &mut |_| true).unwrap().unwrap();
    assert_eq!(about["accuracy"].as_f64(), Some(expected.accuracy));
    for class in 0..3 {
        let new = features(7000 + class, class, 2.0);
        let answer = ok_json(classify(&server, "p", &new)).await;
        assert_eq!(
            (&answer["label"], &answer["probe"]),
            (&json!(format!("c{class}")), &json!("p"))
        );
        assert!(
            answer.get("neighbors").is_none() && answer.get("gallery").is_none(),
            "{answer}"
        );
        let given = answer["probabilities"].as_array().unwrap();
        let probabilities: Vec<f32> = given
            .iter()
            .map(|one| one["probability"].as_f64().unwrap() as f32)
            .collect();
        assert!(
            probabilities.is_sorted_by(|a, b| a >= b) && given[0]["label"] == answer["label"],
            "{answer}"
        );
        let mut sorted = expected.probabilities(&new).unwrap();
        sorted.sort_by(|a, b| b.total_cmp(a));
        assert!(difference(&probabilities, &sorted).0 < 1e-5, "{answer}");
        // Just below the best probability, and just above it.
        for (factor, known) in [(0.999, true), (1.001, false)] {
            let least = f64::from(probabilities[0]) * factor;
            let answer = ok_json(classify(
                &server,
                &format!("p&min_score={}", least.min(1.0)),
                &new,
            ))
            .await;
            assert!(
                least > 1.0 || answer["label"].is_string() == known,
                "{least}: {answer}"
            );
        }
    }
}

/// Returns image files of three classes, with their labels.
fn cifar10(set: &str, numbers: std::ops::Range<usize>) -> Vec<(Vec<u8>, &'static str)> {
    let of_class = |class: &'static str| {
        let folder = crate::support::golden(&format!("cifar10-sample/{set}/{class}"));
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        numbers
            .clone()
            .map(move |number| (std::fs::read(&paths[number]).unwrap(), class))
            .collect::<Vec<_>>()
    };
    ["airplane", "frog", "truck"]
        .into_iter()
        .flat_map(of_class)
        .collect()
}

#[tokio::test]
async fn a_probe_is_trained_on_stored_images_and_classifies_new_ones() {
    let server =
        Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await;
    for (index, (file, label)) in cifar10("train", 0..20).into_iter().enumerate() {
        let url = server.url(&format!("/v1/gallery/{index}?label={label}"));
        ok(server
            .client
            .put(url)
            .header("content-type", "image/jpeg")
            .body(file))
        .await;
    }
    for features in ["cls_mean", "cls"] {
        let trained = ok_json(train_on(
            &server,
            json!({"name": features, "features": features, "wait": true}),
        ))
        .await;
        let width = if features == "cls" { 384 } else { 768 };
        assert_eq!(
            (&trained["probe"]["width"], &trained["probe"]["examples"]),
            (&json!(width), &json!(60))
        );
        let mut right = 0;
        let new = cifar10("test", 0..5);
        for (file, label) in &new {
            let post = |path: &str| {
                let request = server.post(path).header("content-type", "image/jpeg");
                request.body(file.clone())
            };
            let answer = ok_json(post(&format!("/v1/classify?probe={features}"))).await;
            right += usize::from(answer["label"] == *label);
            // The features of the image give the same class.
            let embedded = ok_json(post(&format!(
                "/v1/embed?pooling={features}&normalize=false"
            )))
            .await;
            let by_features = ok_json(classify(
                &server,
                features,
                &floats(&embedded["data"][0]["embedding"]),
            ))
            .await;
            assert_eq!(by_features["label"], answer["label"]);
            let first =
                |answer: &Value| answer["probabilities"][0]["probability"].as_f64().unwrap();
            assert!(
                (first(&answer) - first(&by_features)).abs() < 1e-5,
                "{answer} {by_features}"
            );
        }
        // Chance is a third.
        assert!(
            right * 3 >= new.len() * 2,
            "{features}: {right} of {}",
            new.len()
        );
    }
    // Several images, one of them broken.
    let part = |bytes: Vec<u8>| reqwest::multipart::Part::bytes(bytes).file_name("a.jpg");
    let form = reqwest::multipart::Form::new()
        .part("image", part(read_golden("dinov2-small-focus/rocket.jpg")))
        .part("image", part(b"no picture".to_vec()));
    let answers = ok_json(server.post("/v1/classify?probe=cls").multipart(form)).await;
    assert_eq!(
        answers["data"][0]["probabilities"]
            .as_array()
            .unwrap()
            .len(),
        3,
        "{answers}"
    );
    assert_eq!(answers["data"][1]["error"]["code"], "undecodable_image");
}

#[tokio::test]
async fn vectors_with_features_teach_a_probe() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    let fingerprint = server.engine().fingerprint().to_owned();
    fill(&store, "stored", &fingerprint, 60, 3, 1.0).await;
    let sent = |index: usize| {
        let item = item(index, None, None);
        json!({
            "id": item.id.as_str(), "vector": item.vector, "label": format!("c{}", index % 3),
            "metadata": item.metadata.object(), "features": features(index, index % 3, 1.0),
        })
    };
    // The first alone, the others together.
    let mut first = sent(0);
    let id = first["id"].take();
    first.as_object_mut().unwrap().remove("id");
    let created = format!("fingerprint={fingerprint}&gallery=sent");
    let path = format!(
        "/v1/gallery/{}?{created}",
        id.as_str().unwrap().replace(' ', "%20")
    );
    ok(server.put(&path).json(&first)).await;
    let items: Vec<_> = (1..60).map(sent).collect();
    let body = json!({"gallery": "sent", "items": items});
    let stored = ok_json(server.post("/v1/gallery").json(&body)).await;
    assert!(
        stored["data"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["status"] == "created"),
        "{stored}"
    );
    let mut probes = Vec::new();
    for gallery in ["stored", "sent"] {
        let plan = json!({"name": gallery, "gallery": gallery, "wait": true});
        let trained = ok_json(train_on(&server, plan)).await;
        assert_eq!(trained["probe"]["without_features"], 0);
        let classified = ok_json(classify(&server, gallery, &features(7, 1, 1.0))).await;
        probes.push(classified["probabilities"].clone());
    }
    assert_eq!(probes[0], probes[1]);

    let file = BASE64_STANDARD.encode(read_golden("dinov2-small-focus/rocket.jpg"));
    let mut short = sent(1);
    short["features"] = json!([1.0, 2.0]);
    let mut infinite = sent(2);
    infinite["features"][3] = json!(1e300);
    let image = json!({"id": "x", "image": file, "features": features(1, 1, 1.0)});
    let mut text = sent(3);
    text["features"] = json!("1,2");
    for (item, detail) in [
        (short, "must be 128 numbers"),
        (infinite, "half precision"),
        (image, "leave them out"),
        (text, "features"),
    ] {
        let body = json!({"gallery": "sent", "items": [item]});
        let answer = ok_json(server.post("/v1/gallery").json(&body)).await;
        let problem = &answer["data"][0]["error"];
        assert_eq!(problem["code"], "invalid_option", "{answer}");
        let found = problem["detail"].as_str().unwrap();
        assert!(
            found.contains(detail) && found.contains("features"),
            "{found}"
        );
    }
}

#[tokio::test]
async fn a_probe_survives_a_restart_and_is_replaced_on_all_servers() {
    let location = scratch("probes").to_string_lossy().into_owned();
    let reopen = async || {
        open(&location, &GalleryConfig::default(), OpenMode::Serve)
            .await
            .expect("a gallery")
    };
    let store = reopen().await;
    let server = server_on(&store).await;
    let fingerprint = server.engine().fingerprint().to_owned();
    fill(&store, "g", &fingerprint, 60, 2, 2.0).await;
    ok(train_on(
        &server,
        json!({"name": "p", "gallery": "g", "wait": true}),
    ))
    .await;
    let question = features(1, 1, 3.0);
    let before = ok_json(classify(&server, "p", &question)).await;
    assert_eq!(before["label"], "c1");
    server.stopped().await;
    store.close().await;
    drop(store);

    let store = reopen().await;
    let server = server_on(&store).await;
    let other = server_on(&store).await;
    assert_eq!(ok_json(classify(&server, "p", &question)).await, before);
    // The other server trains a new probe of the same name with other labels.
    let turned = (0..60).map(|index| {
        let label = if index % 2 == 0 { "even" } else { "odd" };
        item(index, Some(label), Some(features(index, index % 2, 2.0)))
    });
    store
        .put(&name("g"), &binding(&fingerprint), turned.collect())
        .await
        .unwrap();
    ok(train_on(
        &other,
        json!({"name": "p", "gallery": "g", "wait": true}),
    ))
    .await;
    for server in [&server, &other] {
        assert_eq!(
            ok_json(classify(server, "p", &question)).await["label"],
            "odd"
        );
    }
    assert_eq!(ok(server.delete("/v1/probes/p")).await.status(), 204);
    for server in [&server, &other] {
        let (status, body) = problem(classify(server, "p", &question)).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (404, Some("not_found")),
            "{body}"
        );
    }
    assert_eq!(problem(server.delete("/v1/probes/p")).await.0, 404);
}

#[tokio::test]
async fn a_filter_chooses_the_training_items() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, "g", server.engine().fingerprint(), 90, 3, 1.0).await;
    let filter = json!({"label": {"any": ["c0", "c2"]}, "metadata": {"even": true}});
    let plan = json!({"name": "p", "gallery": "g", "where": filter, "wait": true});
    let trained = ok_json(train_on(&server, plan)).await;
    assert_eq!(
        (&trained["probe"]["classes"], &trained["probe"]["examples"]),
        (&json!(["c0", "c2"]), &json!(30))
    );
}

/// Starts a training on many indistinguishable classes, which takes more than a few seconds.
async fn slow(store: &Gallery, server: &Server) {
    fill(store, "slow", server.engine().fingerprint(), 1000, 30, 0.01).await;
}

#[tokio::test]
async fn one_training_runs_at_a_time_and_can_be_watched_and_stopped() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    slow(&store, &server).await;
    fill(&store, "quick", server.engine().fingerprint(), 20, 2, 2.0).await;
    let begun = ok(train_on(&server, json!({"name": "p", "gallery": "slow"}))).await;
    assert_eq!(begun.status(), 202);
    assert_eq!(begun.headers()["location"], "/v1/probes/p");
    let begun: Value = begun.json().await.unwrap();
    assert_eq!(begun["state"], "training", "{begun}");

    let (status, body) = problem(train_on(&server, json!({"name": "q", "gallery": "quick"}))).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("overloaded")));
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("the probe `p` is in progress"),
        "{body}"
    );
    let (status, body) = problem(classify(&server, "p", &features(0, 0, 1.0))).await;
    assert_eq!(status, 404);
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("`p` is not ready: in progress"),
        "{body}"
    );

    // It makes progress, and requests are answered meanwhile.
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let state = ok_json(server.get("/v1/probes/p")).await;
        assert_eq!(state["state"], "training", "{state}");
        let at = state["training"].clone();
        if at["stage"] == "validating" && seen.last() != Some(&at["done"]) {
            assert_eq!(at["total"], 40);
            seen.push(at["done"].clone());
        }
        ok(server.post_file("/v1/embed", "dinov2-small-focus/chelsea.png")).await;
    }
    assert!(
        seen.is_sorted_by(|a, b| a.as_u64() < b.as_u64()),
        "{seen:?}"
    );

    assert_eq!(ok(server.delete("/v1/probes/p")).await.status(), 204);
    assert_eq!(problem(server.get("/v1/probes/p")).await.0, 404);
    assert_eq!(store.documents(DocumentKind::Probe).await.unwrap(), [""; 0]);
    // The next training can start.
    let trained = ok_json(train_on(
        &server,
        json!({"name": "q", "gallery": "quick", "wait": true}),
    ))
    .await;
    assert_eq!(trained["state"], "ready");
}

#[tokio::test]
async fn waiting_for_a_training_ends_with_the_request_timeout() {
    let store = new_gallery().await;
    let config = HttpConfig {
        request_timeout: Duration::from_secs(1),
        ..HttpConfig::default()
    };
    let server =
        Server::start_on(store.clone(), tiny("tiny-reg", "model.safetensors"), config).await;
    slow(&store, &server).await;
    let begun = ok(train_on(
        &server,
        json!({"name": "p", "gallery": "slow", "wait": true}),
    ))
    .await;
    assert_eq!(begun.status(), 202);
    ok(server.delete("/v1/probes/p")).await;
    // A caller that waits for a canceled training is answered, too.
    let server = server_on(&store).await;
    let waiting = tokio::spawn(
        train_on(
            &server,
            json!({"name": "p", "gallery": "slow", "wait": true}),
        )
        .send(),
    );
    while server.get("/v1/probes/p").send().await.unwrap().status() == 404 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ok(server.delete("/v1/probes/p")).await;
    let ended = waiting.await.unwrap().unwrap();
    assert_eq!(ended.status(), 404);
    let body: Value = ended.json().await.unwrap();
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("was cancelled before it was ready"),
        "{body}"
    );
}

#[tokio::test]
async fn a_training_that_cannot_work_fails_with_its_reason() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    let fingerprint = server.engine().fingerprint().to_owned();
    fill(&store, "one-class", &fingerprint, 20, 1, 1.0).await;
    fill(&store, "too-many", &fingerprint, 1001, 2, 1.0).await;
    fill(&store, "too-many-classes", &fingerprint, 62, 31, 1.0).await;
    fill(&store, "lone", &fingerprint, 5, 4, 1.0).await;
    let vectors = (0..4).map(|index| item(index, Some(["a", "b"][index % 2]), None));
    store
        .put(&name("vectors"), &binding(&fingerprint), vectors.collect())
        .await
        .unwrap();
    let cases = [
        (
            "one-class",
            422,
            "invalid_option",
            "there is one class only, `c0`",
        ),
        (
            "lone",
            422,
            "invalid_option",
            "the class `c1` has one example",
        ),
        ("vectors", 422, "invalid_option", "no labeled features"),
        (
            "too-many",
            413,
            "too_large",
            "more than 1000 items to learn from",
        ),
        ("too-many-classes", 413, "too_large", "more than 30 labels"),
    ];
    for (gallery, status, code, detail) in cases {
        let plan = |wait: bool| json!({"name": "p", "gallery": gallery, "wait": wait});
        let (found, body) = problem(train_on(&server, plan(true))).await;
        assert_eq!(
            (found, body["code"].as_str()),
            (status, Some(code)),
            "{gallery}: {body}"
        );
        assert!(body["detail"].as_str().unwrap().contains(detail), "{body}");
        assert_eq!(
            ok(train_on(&server, plan(false))).await.status(),
            202,
            "{gallery}"
        );
        let failed = loop {
            let state = ok_json(server.get("/v1/probes/p")).await;
            if state["state"] != "training" {
                break state;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(
            (&failed["state"], &failed["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{failed}"
        );
        assert_eq!(failed["error"]["detail"], body["detail"]);
        assert_eq!(
            ok_json(server.get("/v1/probes")).await["data"][0]["state"],
            "failed"
        );
        // Deleting the probe also deletes the reason.
        ok(server.delete("/v1/probes/p")).await;
        assert_eq!(problem(server.get("/v1/probes/p")).await.0, 404);
    }
}

#[tokio::test]
async fn probes_reject_features_of_another_model() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, "g", server.engine().fingerprint(), 20, 2, 1.0).await;
    fill(&store, "foreign", "0123456789abcdef", 20, 2, 1.0).await;
    let (status, body) = problem(train_on(
        &server,
        json!({"name": "p", "gallery": "foreign"}),
    ))
    .await;
    assert_eq!(
        (status, body["code"].as_str()),
        (409, Some("conflict")),
        "{body}"
    );
    ok(train_on(
        &server,
        json!({"name": "p", "gallery": "g", "wait": true}),
    ))
    .await;
    let other = Server::start_on(
        store,
        tiny("tiny", "model.safetensors"),
        HttpConfig::default(),
    )
    .await;
    for request in [
        classify(&other, "p", &features(0, 0, 1.0)),
        other.post_file("/v1/classify?probe=p", "dinov2-small-focus/chelsea.png"),
    ] {
        let (status, body) = problem(request).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (409, Some("conflict")),
            "{body}"
        );
        assert!(
            body["detail"]
                .as_str()
                .unwrap()
                .contains("takes features of tiny-reg (fingerprint ")
        );
    }
    // The same model with other preprocessing.
    let (status, body) = problem(server.post_file(
        "/v1/classify?probe=p&size=448",
        "dinov2-small-focus/chelsea.png",
    ))
    .await;
    assert_eq!(status, 409);
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("size=224 and not size=448"),
        "{body}"
    );
}

#[tokio::test]
async fn bad_requests_about_probes_are_rejected() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, "g", server.engine().fingerprint(), 20, 2, 1.0).await;
    ok(train_on(
        &server,
        json!({"name": "p", "gallery": "g", "wait": true}),
    ))
    .await;
    let plan = |name: &str, value: Value| {
        let mut plan = json!({"name": "new", "gallery": "g"});
        plan[name] = value;
        train_on(&server, plan)
    };
    let ask = |query: &str| {
        let request = server.post(&format!("/v1/classify?probe=p&{query}"));
        request.json(&json!({"vector": features(0, 0, 1.0)}))
    };
    let vector = |vector: Value| {
        server
            .post("/v1/classify?probe=p")
            .json(&json!({"vector": vector}))
    };
    let without = Server::tiny().await;

    #[rustfmt::skip]
    let cases: Vec<BadRequest> = vec![
        ("no name", train_on(&server, json!({"gallery": "g"})),
         422, "invalid_option", "option `name`: required"),
        ("bad name", plan("name", json!("A b")), 422, "invalid_option", "\"A b\" is no name"),
        ("no such gallery", plan("gallery", json!("nowhere")), 404, "not_found", "nowhere"),
        ("bad features", plan("features", json!("gem")),
         422, "invalid_option",
         "option `features`: unknown variant `gem`, expected `cls_mean` or `cls`"),
        ("l2 zero", plan("l2", json!(0)), 422, "invalid_option", "option `l2`: 0 is out of range"),
        ("l2 negative", plan("l2", json!(-1.5)),
         422, "invalid_option", "option `l2`: -1.5 is out of range"),
        ("l2 a text", plan("l2", json!("weak")),
         422, "invalid_option", "option `l2`: invalid type"),
        ("one fold", plan("folds", json!(1)),
         422, "invalid_option", "option `folds`: 1 is out of range; it must be 2 to 20"),
        ("bad filter", plan("where", json!({"color": "red"})),
         422, "invalid_option", "a filter is"),
        ("unknown option", plan("lr", json!(0.1)),
         422, "invalid_option",
         "option `lr`: unknown; expected one of model, name, gallery"),
        ("twice", server.post("/v1/probes?l2=1").json(&json!({"name": "new", "l2": 1})),
         422, "invalid_option", "option `l2`: given twice"),
        ("no JSON", server.post("/v1/probes").header("content-type", "application/json").body("{"),
         400, "malformed_request", "the JSON cannot be read"),
        ("no body", server.post("/v1/probes"),
         415, "unsupported_media_type", "send Content-Type: application/json"),
        ("an image", server.post_file("/v1/probes", "dinov2-small-focus/chelsea.png"),
         415, "unsupported_media_type", "send Content-Type: application/json"),
        ("no such probe", server.get("/v1/probes/nothing"), 404, "not_found", "nothing"),
        ("odd path", server.get("/v1/probes/No%20name"), 422, "invalid_option", "is no name"),
        ("option of a look", server.get("/v1/probes/p?k=1"), 422, "invalid_option", "option `k`"),
        ("no such probe to use",
         server.post("/v1/classify?probe=nothing").json(&json!({"vector": [1]})),
         404, "not_found", "nothing"),
        ("k with a probe", ask("k=5"),
         422, "invalid_option", "option `k`: cannot be combined with `probe`"),
        ("vote with a probe", ask("vote=majority"),
         422, "invalid_option", "option `vote`: cannot be combined with `probe`"),
        ("temperature with a probe", ask("temperature=1"),
         422, "invalid_option", "option `temperature`: cannot be combined with `probe`"),
        ("gallery with a probe", ask("gallery=g"),
         422, "invalid_option", "option `gallery`: cannot be combined with `probe`"),
        ("unknown with a probe", ask("nonsense=1"),
         422, "invalid_option", "option `nonsense`: unknown; expected one of"),
        ("min_score", ask("min_score=1.5"),
         422, "invalid_option",
         "option `min_score`: 1.5 is out of range; for a probe it must be 0 to 1"),
        ("width", vector(json!([1.0, 2.0])),
         422, "invalid_option",
         "option `vector`: has 2 values; the probe `p` takes the 128 of \
          /v1/embed?pooling=cls_mean&normalize=false"),
        ("too large a number", vector(json!(vec![1e300; 2 * DIM])),
         422, "invalid_option", "vector"),
        ("server without a gallery", without.post("/v1/probes").json(&json!({"name": "p"})),
         404, "not_found", "--gallery"),
        ("no list without a gallery", without.get("/v1/probes"), 404, "not_found", "--gallery"),
        ("wrong method", server.put("/v1/probes/p"),
         405, "method_not_allowed", "does not take PUT"),
    ];
    for case in cases {
        assert_problem(case).await;
    }
    assert_eq!(
        ok_json(server.get("/v1/probes")).await["data"]
            .as_array()
            .unwrap()
            .len(),
        1,
        "nothing was begun"
    );
}
