//! The OpenAPI document: committed, up to date, and served.

use std::{collections::BTreeSet, path::Path};

use dinoserve::http::description;
use serde_json::Value;

use crate::support::server::Server;

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

#[test]
fn no_operation_has_two_options_of_one_name() {
    let description: Value = serde_json::to_value(description()).unwrap();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let mut names = BTreeSet::new();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                assert!(names.insert(name), "{method} {path}: {name}");
            }
        }
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
