//! Audits of galleries over HTTP: their findings, progress and end; and galleries that are renamed.

use dinoserve::{
    features::pool::Pooling,
    gallery::{
        Binding, DocumentKey, DocumentKind, Gallery, GalleryName, ItemId, Label, Metadata, NewItem,
    },
    http::HttpConfig,
    model::ModelId,
    vision::{Preprocessing, ResizeMode},
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{
    server::{Server, new_gallery, ok, ok_json, problem},
    tiny,
};

/// Width of a vector of the tiny model.
const DIM: usize = 64;

pub(super) async fn server_on(store: &Gallery) -> Server {
    let model = tiny("tiny-reg", "model.safetensors");
    Server::start_on(store.clone(), model, HttpConfig::default()).await
}

/// Returns an item of one of three classes, whose vectors have an angle of about 60 degrees within
/// a class. Item 7 is the same as item 4, item 11 has the label of another class, and item 30 is
/// like no other.
pub(super) fn item(index: usize) -> NewItem {
    let of = if index == 7 { 4 } else { index };
    let mut random = fastrand::Rng::with_seed(of as u64);
    let class = of % 3;
    let mut vector: Vec<f32> = (0..DIM).map(|_| random.f32() - 0.5).collect();
    match index {
        30 => vector = (0..DIM).map(|at| -f32::from(u8::from(at == 40))).collect(),
        _ => vector[class] += 2.5,
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    let label = ["ant", "bee", "cat"][if index == 11 { 0 } else { class }];
    NewItem {
        id: ItemId::new(format!("item {index}")).unwrap(),
        label: Some(Label::new(label).unwrap()),
        metadata: Metadata::default(),
        vector: vector.iter().map(|value| value / length).collect(),
        features: None,
        thumbnail: None,
    }
}

pub(super) fn items(count: usize) -> Vec<NewItem> {
    (0..count).map(item).collect()
}

/// Stores items in the gallery `name`.
pub(super) async fn fill(store: &Gallery, server: &Server, name: &str, items: Vec<NewItem>) {
    let binding = Binding {
        model: ModelId {
            name: "tiny-reg".to_owned(),
            fingerprint: server.engine().fingerprint().to_owned().into(),
        },
        dim: DIM,
        pooling: Pooling::Cls,
        layers: 1,
        preprocessing: Preprocessing::new(ResizeMode::Crop, 224),
    };
    let name = GalleryName::new(name).unwrap();
    store.put(&name, &binding, items).await.unwrap();
}

fn audit(server: &Server, gallery: &str, query: &str) -> RequestBuilder {
    server.post(&format!("/v1/galleries/{gallery}/audit{query}"))
}

#[tokio::test]
async fn what_is_unusual_in_a_gallery_is_found_and_kept() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, &server, "g", items(180)).await;
    let path = "/v1/galleries/g/audit";
    let (status, body) = problem(server.get(path)).await;
    assert_eq!(status, 404);
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.contains(&format!("start one with POST {path}")),
        "{detail}"
    );

    let options = "?wait=true&clusters=3&neighbors=12&duplicates_above=0.95";
    let found = ok_json(audit(&server, "g", options)).await;
    assert_eq!(
        (&found["gallery"], &found["state"]),
        (&json!("g"), &json!("ready"))
    );
    let report = &found["audit"];
    assert_eq!(
        (&report["images"], &report["neighbors"]),
        (&json!(180), &json!(12))
    );
    assert_eq!(
        report["duplicates"].as_array().unwrap().len(),
        1,
        "{report}"
    );
    assert_eq!(report["duplicates"][0]["ids"], json!(["item 4", "item 7"]));
    assert!(report["duplicates"][0]["score"].as_f64().unwrap() > 0.999);
    let mislabel = &report["mislabels"][0];
    assert_eq!(
        (&mislabel["id"], &mislabel["label"], &mislabel["suggested"]),
        (&json!("item 11"), &json!("ant"), &json!("cat"))
    );
    assert_eq!(report["outliers"][0]["id"], "item 30", "{report}");
    let clusters = report["clusters"].as_array().unwrap();
    let sizes = clusters
        .iter()
        .map(|cluster| cluster["ids"].as_array().unwrap().len());
    assert_eq!((clusters.len(), sizes.sum::<usize>()), (3, 180));

    // It is kept in the store, so that other servers have it, too.
    assert_eq!(ok_json(server.get(path)).await, found);
    let other = server_on(&store).await;
    assert_eq!(ok_json(other.get(path)).await, found);
    let rows = ok(server.get(path).header("accept", "text/csv")).await;
    assert_eq!(rows.headers()["content-type"], "text/csv");
    let rows = rows.text().await.unwrap();
    let lines: Vec<&str> = rows.lines().collect();
    assert_eq!(lines[0], "finding,group,id,label,suggested,score");
    assert!(
        lines[1].starts_with("duplicate,0,item 4,,,"),
        "{}",
        lines[1]
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("mislabel,,item 11,ant,cat,"))
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("cluster,"))
            .count(),
        180
    );

    // Also under another name, until the gallery is deleted.
    ok(server
        .patch("/v1/galleries/g")
        .json(&json!({"to": "photos"})))
    .await;
    let renamed = ok_json(server.get("/v1/galleries/photos/audit")).await;
    assert_eq!(renamed["audit"], found["audit"]);
    ok(server.delete("/v1/galleries/photos")).await;
    assert_eq!(store.documents(DocumentKind::Audit).await.unwrap(), [""; 0]);
    fill(&store, &server, "photos", items(3)).await;
    assert_eq!(
        problem(server.get("/v1/galleries/photos/audit")).await.0,
        404
    );
}

#[tokio::test]
async fn a_report_is_that_of_its_own_gallery() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    // A label of its own for each item says nothing about others.
    let unique = (0..60).map(|index| NewItem {
        label: Some(Label::new(format!("label {index}")).unwrap()),
        ..item(index)
    });
    fill(&store, &server, "a", unique.collect()).await;
    fill(&store, &server, "b", items(60)).await;
    let found = ok_json(audit(&server, "a", "?wait=true")).await;
    assert_eq!(found["audit"]["mislabels"], json!([]));
    ok(server.post("/v1/galleries/a/map?wait=true")).await;

    // What another gallery of the name has left is not shown.
    let [a, b] = ["a", "b"].map(|name| GalleryName::new(name).unwrap());
    let pairs = [
        (DocumentKey::of_audit(&a), DocumentKey::of_audit(&b)),
        (DocumentKey::of_map(&a), DocumentKey::of_map(&b)),
    ];
    for (from, to) in pairs {
        let left = store.document(from).await.unwrap().unwrap();
        store.put_document(to, left).await.unwrap();
        assert_eq!(problem(server.get(&to.path())).await.0, 404);
        ok(server.get(&from.path())).await;
    }
}

#[tokio::test]
async fn an_audit_is_watched_and_cancelled_while_requests_are_answered() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, &server, "large", items(6000)).await;
    let begun = ok(audit(&server, "large", "")).await;
    assert_eq!(begun.status(), 202);
    assert_eq!(begun.headers()["location"], "/v1/galleries/large/audit");
    let begun: Value = begun.json().await.unwrap();
    assert_eq!(
        (&begun["state"], begun.get("audit")),
        (&json!("running"), None)
    );
    let (status, body) = problem(audit(&server, "large", "")).await;
    assert_eq!((status, &body["code"]), (503, &json!("overloaded")));
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.contains("the audit of the gallery `large` is in progress"),
        "{detail}"
    );
    let probe = json!({"name": "p", "gallery": "large"});
    assert_eq!(problem(server.post("/v1/probes").json(&probe)).await.0, 503);

    let mut stages = Vec::new();
    while !stages.contains(&json!("grouping")) {
        let state = ok_json(server.get("/v1/galleries/large/audit")).await;
        assert_eq!(state["state"], "running", "{state}");
        let progress = &state["progress"];
        assert!(
            progress["done"].as_u64() <= progress["total"].as_u64(),
            "{progress}"
        );
        if stages.last() != Some(&progress["stage"]) {
            stages.push(progress["stage"].clone());
        }
        ok(server.get("/v1/knn?id=item%204&gallery=large")).await;
    }
    assert_eq!(
        ok(server.delete("/v1/galleries/large/audit"))
            .await
            .status(),
        204
    );
    assert_eq!(
        problem(server.get("/v1/galleries/large/audit")).await.0,
        404
    );
    assert_eq!(
        problem(server.delete("/v1/galleries/large/audit")).await.0,
        404
    );
    assert_eq!(store.documents(DocumentKind::Audit).await.unwrap(), [""; 0]);

    // Cancelling the next audit leaves the report of the last one.
    let found = loop {
        let found = ok_json(audit(&server, "large", "?wait=true&clusters=2")).await;
        if found["state"] == "ready" {
            break found;
        }
    };
    ok(audit(&server, "large", "")).await;
    ok(server.delete("/v1/galleries/large/audit")).await;
    assert_eq!(
        ok_json(server.get("/v1/galleries/large/audit")).await,
        found
    );

    // The end of the gallery is that of its audit.
    ok(audit(&server, "large", "")).await;
    ok(server.delete("/v1/galleries/large")).await;
    fill(&store, &server, "small", items(30)).await;
    let found = ok_json(audit(&server, "small", "?wait=true")).await;
    assert_eq!(found["state"], "ready");
    assert_eq!(
        store.documents(DocumentKind::Audit).await.unwrap(),
        ["small"]
    );
}

#[tokio::test]
async fn audits_that_cannot_work_are_rejected_with_the_reason() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, &server, "g", items(6001)).await;
    fill(&store, &server, "one", items(1)).await;
    let (status, body) = problem(audit(&server, "g", "")).await;
    assert_eq!(
        (status, &body["limit"]["name"]),
        (413, &json!("max_compared_items"))
    );
    for (query, option) in [
        ("?neighbors=0", "neighbors"),
        ("?neighbors=101", "neighbors"),
        ("?duplicates_above=1.5", "duplicates_above"),
        ("?duplicates_above=nan", "duplicates_above"),
        ("?clusters=0", "clusters"),
        ("?clusters=1001", "clusters"),
        ("?cluster=3", "cluster"),
    ] {
        let (status, body) = problem(audit(&server, "one", query)).await;
        assert_eq!(status, 422, "{query}: {body}");
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains(option), "{query}: {detail}");
    }
    assert_eq!(problem(audit(&server, "none", "")).await.0, 404);
    assert_eq!(problem(server.get("/v1/galleries/none/audit")).await.0, 404);
    let csv = server
        .get("/v1/galleries/one/audit")
        .header("accept", "text/html");
    assert_eq!(problem(csv).await.0, 406);

    let (status, body) = problem(audit(&server, "one", "?wait=true")).await;
    assert_eq!(status, 422);
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("needs at least two"), "{detail}");
    let failed = ok_json(server.get("/v1/galleries/one/audit")).await;
    assert_eq!(
        (&failed["state"], failed.get("audit")),
        (&json!("failed"), None)
    );
    assert_eq!(failed["error"]["detail"], body["detail"]);
    ok(server.delete("/v1/galleries/one/audit")).await;
    assert_eq!(problem(server.get("/v1/galleries/one/audit")).await.0, 404);
}

#[tokio::test]
async fn a_gallery_is_renamed_unless_the_name_is_taken() {
    let store = new_gallery().await;
    let server = server_on(&store).await;
    fill(&store, &server, "a", items(4)).await;
    fill(&store, &server, "b", items(2)).await;
    let rename =
        |from: &str, body: Value| server.patch(&format!("/v1/galleries/{from}")).json(&body);
    let (status, body) = problem(rename("a", json!({"to": "b"}))).await;
    assert_eq!(status, 409, "{body}");
    for (body, word) in [
        (json!({}), "to"),
        (json!({"to": "A b"}), "no name"),
        (json!({"name": "c"}), "name"),
    ] {
        let (status, answer) = problem(rename("a", body)).await;
        assert_eq!(status, 422, "{answer}");
        assert!(
            answer["detail"].as_str().unwrap().contains(word),
            "{answer}"
        );
    }
    assert_eq!(problem(rename("none", json!({"to": "c"}))).await.0, 404);
    let renamed = ok_json(rename("a", json!({"to": "c"}))).await;
    assert_eq!(
        (&renamed["name"], &renamed["items"]),
        (&json!("c"), &json!(4))
    );
    assert_eq!(problem(server.get("/v1/galleries/a")).await.0, 404);
    assert_eq!(ok_json(server.get("/v1/galleries/b")).await["items"], 2);
    ok(server.get("/v1/knn?id=item%203&gallery=c")).await;
}
