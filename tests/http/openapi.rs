//! The OpenAPI document: committed, up to date, and with exactly the options that the server
//! accepts.

use std::{collections::BTreeSet, path::Path};

use dinoserve::http::description;
use serde_json::{Value, json};

use crate::support::{read_golden, server::Server};

#[test]
fn the_committed_description_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let current = description().to_pretty_json().unwrap();
    assert!(
        committed.trim_end() == current.trim_end(),
        "openapi/openapi.json is out of date: run `make openapi`"
    );
}

#[tokio::test]
async fn described_options_are_exactly_the_accepted_ones() {
    const FILE: &str = "dinov2-small-focus/chelsea.png";
    let description: Value = serde_json::to_value(description()).unwrap();
    let server = Server::tiny().await;
    let image = |path: &str| server.post_file(path, FILE);
    let items = json!({"items": [{"id": "a", "vector": [1]}]});
    let operations = [
        ("post", "/v1/embed", image("/v1/embed?nonsense=1")),
        ("post", "/v1/pca", image("/v1/pca?nonsense=1")),
        ("post", "/v1/attention", image("/v1/attention?nonsense=1")),
        (
            "post",
            "/v1/attention/stats",
            image("/v1/attention/stats?nonsense=1"),
        ),
        ("post", "/v1/similarity", image("/v1/similarity?nonsense=1")),
        ("post", "/v1/knn", image("/v1/knn?nonsense=1")),
        ("post", "/v1/classify", image("/v1/classify?nonsense=1")),
        ("get", "/v1/knn", server.get("/v1/knn?nonsense=1")),
        ("get", "/v1/gallery", server.get("/v1/gallery?nonsense=1")),
        (
            "post",
            "/v1/gallery",
            server.post("/v1/gallery?nonsense=1").json(&items),
        ),
        (
            "put",
            "/v1/gallery/{id}",
            server
                .put("/v1/gallery/a?nonsense=1")
                .json(&json!({"vector": [1]})),
        ),
        (
            "get",
            "/v1/gallery/{id}",
            server.get("/v1/gallery/a?nonsense=1"),
        ),
        (
            "delete",
            "/v1/gallery/{id}",
            server.delete("/v1/gallery/a?nonsense=1"),
        ),
        (
            "get",
            "/v1/gallery/{id}/thumbnail",
            server.get("/v1/gallery/a/thumbnail?nonsense=1"),
        ),
        (
            "get",
            "/v1/galleries",
            server.get("/v1/galleries?nonsense=1"),
        ),
        (
            "get",
            "/v1/galleries/{name}",
            server.get("/v1/galleries/a?nonsense=1"),
        ),
        (
            "delete",
            "/v1/galleries/{name}",
            server.delete("/v1/galleries/a?nonsense=1"),
        ),
        (
            "get",
            "/v1/galleries/{name}/snapshot",
            server.get("/v1/galleries/a/snapshot?nonsense=1"),
        ),
        (
            "put",
            "/v1/galleries/{name}/snapshot",
            server.put("/v1/galleries/a/snapshot?nonsense=1"),
        ),
        ("get", "/v1/probes", server.get("/v1/probes?nonsense=1")),
        (
            "post",
            "/v1/probes",
            server.post("/v1/probes?nonsense=1").json(&json!({})),
        ),
        (
            "get",
            "/v1/probes/{name}",
            server.get("/v1/probes/a?nonsense=1"),
        ),
        (
            "delete",
            "/v1/probes/{name}",
            server.delete("/v1/probes/a?nonsense=1"),
        ),
        (
            "put",
            "/v1/bases/{name}",
            server
                .put("/v1/bases/a?nonsense=1")
                .header("content-type", "image/png")
                .body(read_golden(FILE)),
        ),
        ("post", "/v1/bases/{name}", image("/v1/bases/a?nonsense=1")),
        (
            "get",
            "/v1/bases/{name}",
            server.get("/v1/bases/a?nonsense=1"),
        ),
        ("get", "/v1/bases", server.get("/v1/bases?nonsense=1")),
        (
            "delete",
            "/v1/bases/{name}",
            server.delete("/v1/bases/a?nonsense=1"),
        ),
    ];
    for (method, path, request) in operations {
        let parameters = description["paths"][path][method]["parameters"].as_array();
        let of_query = parameters
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query");
        let names: Vec<&str> = of_query
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let described = BTreeSet::from_iter(names.iter().copied());
        assert_eq!(
            described.len(),
            names.len(),
            "{method} {path} has a name for two things: {names:?}"
        );
        let problem: Value = request.send().await.unwrap().json().await.unwrap();
        let detail = problem["detail"].as_str().unwrap().to_owned();
        let known = match detail.strip_suffix("option `nonsense`: there are no options here") {
            Some(_) => BTreeSet::new(),
            None => detail
                .split("there are ")
                .nth(1)
                .unwrap()
                .split(", ")
                .collect::<BTreeSet<_>>(),
        };
        assert_eq!(described, known, "{method} {path}");
    }
}

#[tokio::test]
async fn the_server_serves_its_description() {
    let server = Server::tiny().await;
    let served: Value = server
        .get("/openapi.json")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(served, serde_json::to_value(description()).unwrap());
}
