//! The OpenAPI document: committed, up to date, and served.

use std::{collections::BTreeSet, path::Path};

use dinoserve::http::{
    access::{ApiKeys, NewKey, Role},
    description,
};
use serde_json::Value;

use crate::support::{
    scratch,
    server::{Server, Setup, ok_json},
};

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
    let full = serde_json::to_value(description()).unwrap();
    let file = scratch("openapi").join("keys.toml");
    let NewKey { entry, .. } = NewKey::random("a", Role::Read, None, None).unwrap();
    std::fs::write(&file, entry).unwrap();
    for keys in [None, Some(ApiKeys::open(&file).unwrap())] {
        let has_keys = keys.is_some();
        let setup = Setup {
            keys,
            ..Setup::tiny()
        };
        let server = setup.start().await;
        let mut served = ok_json(server.get("/openapi.json")).await;
        // A page of a server without keys does not ask for one.
        assert_eq!(served.get("security").is_some(), has_keys);
        if !has_keys {
            served["security"] = full["security"].clone();
            served["components"]["securitySchemes"] = full["components"]["securitySchemes"].clone();
        }
        assert_eq!(served, full);
        server.stopped().await;
    }
}

#[tokio::test]
async fn an_item_can_be_stored_as_a_file() {
    let server = Server::tiny().await;
    let document = ok_json(server.get("/openapi.json")).await;
    let body = &document["paths"]["/v1/gallery/{id}"]["put"]["requestBody"]["content"];
    for form in ["image/*", "multipart/form-data", "application/json"] {
        assert!(body[form].is_object(), "{form} of {body}");
    }
}

#[tokio::test]
async fn the_index_lists_every_operation() {
    let server = Server::tiny().await;
    let index = ok_json(server.get("/v1")).await;
    let listed: BTreeSet<String> = index["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| {
            let [method, path, summary] =
                ["method", "path", "summary"].map(|name| operation[name].as_str().unwrap());
            assert!(!summary.is_empty(), "{method} {path}");
            format!("{} {path}", method.to_lowercase())
        })
        .collect();
    let document = serde_json::to_value(description()).unwrap();
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(listed, described);
    let version = ok_json(server.get("/version")).await;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}
