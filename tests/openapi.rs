//! The API's description: committed, up to date, and with exactly the options that the server knows.

use std::{collections::BTreeSet, path::Path};

use dinoserve::http::openapi::description;
use serde_json::Value;

use crate::support::server::Server;

#[test]
fn the_committed_description_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let current = description().to_pretty_json().unwrap();
    assert!(committed.trim_end() == current.trim_end(), "openapi/openapi.json is out of date: run `make openapi`");
}

#[tokio::test]
async fn described_options_are_the_known_ones() {
    let description: Value = serde_json::to_value(description()).unwrap();
    let server = Server::tiny().await;
    for path in ["/v1/embed", "/v1/pca", "/v1/attention"] {
        let parameters = description["paths"][path]["post"]["parameters"].as_array().unwrap();
        let described: BTreeSet<&str> =
            parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let request = server.post_file(&format!("{path}?nonsense=1"), "dinov2-small-focus/chelsea.png");
        let problem: Value = request.send().await.unwrap().json().await.unwrap();
        let detail = problem["detail"].as_str().unwrap().to_owned();
        let known = detail.split("there are ").nth(1).unwrap().split(", ").collect::<BTreeSet<_>>();
        assert_eq!(described, known, "{path}");
    }
}

#[tokio::test]
async fn the_server_serves_its_description() {
    let server = Server::tiny().await;
    let served: Value = server.get("/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(served, serde_json::to_value(description()).unwrap());
}
