//! The API's description: committed, up to date, and with exactly the options that the server knows.

use std::{collections::BTreeSet, path::Path};

use dinoserve::http::openapi::description;
use serde_json::Value;

use crate::support::{read_golden, server::Server};

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
    for (method, path) in [
        ("post", "/v1/embed"),
        ("post", "/v1/pca"),
        ("post", "/v1/attention"),
        ("put", "/v1/bases/{name}"),
        ("post", "/v1/bases/{name}"),
    ] {
        let parameters = description["paths"][path][method]["parameters"].as_array().unwrap();
        let in_query = |parameter: &&Value| parameter["in"] == "query";
        let described: BTreeSet<&str> =
            parameters.iter().filter(in_query).map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let url = server.url(&format!("{}?nonsense=1", path.replace("{name}", "any")));
        let request = server.client.request(method.to_uppercase().parse().unwrap(), url);
        let request =
            request.header("content-type", "image/png").body(read_golden("dinov2-small-focus/chelsea.png"));
        let problem: Value = request.send().await.unwrap().json().await.unwrap();
        let detail = problem["detail"].as_str().unwrap().to_owned();
        let known = detail.split("there are ").nth(1).unwrap().split(", ").collect::<BTreeSet<_>>();
        assert_eq!(described, known, "{method} {path}");
    }
}

#[tokio::test]
async fn the_server_serves_its_description() {
    let server = Server::tiny().await;
    let served: Value = server.get("/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(served, serde_json::to_value(description()).unwrap());
}
