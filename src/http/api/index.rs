//! `GET /version` and the index `GET /v1`.

use std::sync::Arc;

use axum::{Extension, Json};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{OpenApi, path::PathItem},
};

use crate::http::openapi::operations;

/// The program that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    /// Always `dinoserve`.
    #[schema(example = "dinoserve")]
    name: &'static str,
    /// Version of the program.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// What the server offers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Index {
    /// Path of the OpenAPI document.
    #[schema(example = "/openapi.json")]
    openapi: &'static str,
    /// Path of the page with all options, where requests can be tried.
    #[schema(example = "/docs")]
    docs: &'static str,
    /// All operations, ordered by path.
    operations: Vec<OperationSummary>,
}

/// One operation of the API.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OperationSummary {
    /// Method.
    #[schema(example = "POST")]
    method: String,
    /// Path, with parameters in braces.
    #[schema(example = "/v1/embed")]
    path: String,
    /// Its purpose in one sentence.
    #[schema(example = "Embed images.")]
    summary: String,
}

impl Index {
    /// Returns the index of a described API.
    pub(crate) fn of(description: &OpenApi) -> Self {
        let mut operations = Vec::new();
        for (path, item) in &description.paths.paths {
            operations.extend(summaries(path, item.clone()));
        }
        Self {
            openapi: "/openapi.json",
            docs: "/docs",
            operations,
        }
    }
}

fn summaries(path: &str, mut item: PathItem) -> Vec<OperationSummary> {
    let found = operations(&mut item).map(|(method, operation)| OperationSummary {
        method: method.to_string(),
        path: path.to_owned(),
        summary: operation.summary.clone().unwrap_or_default(),
    });
    found.collect()
}

/// Get the version of the server.
#[utoipa::path(
    get,
    path = "/version",
    tag = "server",
    responses((status = 200, description = "The version.", body = Version))
)]
pub(crate) async fn get_version() -> Json<Version> {
    Json(Version {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// List the operations of the API.
#[utoipa::path(
    get,
    path = "/v1",
    tag = "server",
    responses((status = 200, description = "The operations.", body = Index))
)]
pub(crate) async fn list_operations(Extension(index): Extension<Arc<Index>>) -> Json<Index> {
    Json(Index::clone(&index))
}
