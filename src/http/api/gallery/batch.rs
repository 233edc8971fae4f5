//! `POST /v1/gallery`.

use std::collections::HashMap;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    gallery::{GalleryName, ItemId, Written},
    http::{
        api::{
            gallery::{
                GalleryOption,
                schema::{BatchForm, BatchJson, GalleryParams, VectorParams, WriteProblems},
                take_facts,
            },
            schema::ImageParams,
        },
        request::{body::ItemsRequest, json::BodyItem},
        response::{
            negotiate::{Representation, answer},
            problem::Problem,
        },
    },
    service::{NewEntry, Service, VectorOptions},
};

/// What became of a batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// The gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Width of its vectors.
    #[schema(example = 384)]
    dim: usize,
    /// One entry per item, in their order.
    data: Vec<BatchOutcome>,
}

/// What became of an item.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchOutcome {
    /// Which item of the request.
    index: usize,
    /// Its id, if it can be told.
    #[schema(example = "cats/chelsea.jpg")]
    id: Option<String>,
    /// What was done.
    status: BatchStatus,
    /// Why nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum BatchStatus {
    /// The item is new.
    Created,
    /// It has replaced another.
    Replaced,
    /// It was not stored.
    Failed,
}

impl BatchOutcome {
    fn new(index: usize, id: Option<String>, outcome: Result<Written>) -> Self {
        let (status, error) = match outcome {
            Ok(Written::Created { .. }) => (BatchStatus::Created, None),
            Ok(Written::Replaced { .. }) => (BatchStatus::Replaced, None),
            Err(error) => (BatchStatus::Failed, Some(Problem::new(&error))),
        };
        Self {
            index,
            id,
            status,
            error,
        }
    }
}

/// Store several items.
///
/// All items that are good are stored together, in one transaction; the others are told why not.
/// Each item is an image or a vector with its id, `label` and `metadata`. Files of a form have
/// their name as id, unless a part `items` tells more: a JSON list with an object for each file, in
/// their order.
#[utoipa::path(
    post,
    path = "/v1/gallery",
    tag = "gallery",
    params(GalleryParams, ImageParams, VectorParams),
    request_body(content((BatchForm = "multipart/form-data"), (BatchJson = "application/json"))),
    responses((status = 200, description = "What became of each item.", body = BatchAnswer), WriteProblems)
)]
pub(crate) async fn put_items(
    State(service): State<Service>,
    request: ItemsRequest,
) -> Result<Response> {
    let ItemsRequest {
        items,
        mut options,
        admission: _admission,
    } = request;
    let GalleryOption { gallery } = options.take()?;
    let image = options.take_image()?;
    let vectors: VectorOptions = options.take()?;
    options.finish()?;

    check_distinct(&items)?;
    let ids: Vec<Option<String>> = items.iter().map(|item| item.id.clone()).collect();
    let (mut entries, mut outcomes) = (Vec::new(), Vec::new());
    for item in items {
        outcomes.push(entry(item).map(|entry| entries.push(entry)));
    }
    let stored = service.insert(&gallery, entries, &image, &vectors).await?;
    let mut stored_outcomes = stored.outcomes.into_iter();
    let outcome = |((index, id), outcome): ((usize, Option<String>), Result<()>)| {
        let outcome = outcome.and_then(|()| {
            stored_outcomes
                .next()
                .unwrap_or_else(|| Err(Error::internal("no outcome")))
        });
        BatchOutcome::new(index, id, outcome)
    };
    let data = ids
        .into_iter()
        .enumerate()
        .zip(outcomes)
        .map(outcome)
        .collect();
    let body = BatchAnswer {
        gallery,
        dim: stored.binding.dim,
        data,
    };
    let body = serde_json::to_vec(&body).map_err(|error| Error::internal(error.to_string()))?;
    Ok(answer(Representation::Json, body, &stored.stages))
}

/// Of two items with one id it would be a matter of luck which is kept.
fn check_distinct(items: &[BodyItem]) -> Result<()> {
    let mut seen = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(id) = &item.id
            && let Some(first) = seen.insert(id.as_str(), index)
        {
            return Err(Error::option(
                "id",
                format!("{id:?} stands at items {first} and {index}; an id is given once"),
            ));
        }
    }
    Ok(())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IdOption {
    id: Option<String>,
}

fn entry(item: BodyItem) -> Result<NewEntry> {
    let (subject, mut options) = item.content?;
    let IdOption { id } = options.take()?;
    let id = id.ok_or_else(|| {
        Error::option("id", "an item has none; give each one, or its file a name")
    })?;
    let id = ItemId::new(id)?;
    let (label, metadata) = take_facts(&mut options)?;
    options.finish()?;
    Ok(NewEntry {
        id,
        label,
        metadata,
        input: subject,
    })
}
