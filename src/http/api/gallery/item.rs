//! `PUT`, `GET` and `DELETE /v1/gallery/{id}`.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::ItemJson,
    params::{
        GalleryParams, IdPath, ImageOrVectorJson, ItemParams, VectorParams, take_input_options,
    },
};
use crate::{
    error::Error,
    gallery::{GalleryName, ItemId, Label, Metadata, Parts},
    http::{
        Result,
        api::schema::ImageParams,
        openapi::{GalleryProblems, WriteProblems},
        request::{body::QueryRequest, options::Options, path::NamePath},
        response::answer::json,
    },
    service::{Answers, NewEntry, Service},
};

/// The stored item.
#[derive(Serialize, ToSchema)]
pub(crate) struct StoredJson {
    /// Id of the item.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// Name of the gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Position in the order of the gallery.
    #[schema(value_type = Option<u64>, required = false, example = 17)]
    place: u64,
    /// Label, if it has one.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// Metadata.
    #[schema(value_type = Object, example = json!({"year": 2024}))]
    metadata: Metadata,
    /// Whether the item is new. False if it replaced an item with the same id.
    created: bool,
    /// Width of its vector.
    #[schema(example = 384)]
    dim: usize,
}

/// Store an item.
///
/// Runs the model on the image, and stores its vector, its features for probes, and a thumbnail. A
/// vector from elsewhere can be sent instead of an image. An item with the same id is replaced. The
/// write is durable: the response is sent only after fsync.
///
/// The first item creates the gallery, with its image options, `pooling` and `layers`. Later items
/// use these settings of the gallery: leave the options out, since other values are rejected.
#[utoipa::path(
    put,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(IdPath, GalleryParams, ItemParams, ImageParams, VectorParams),
    request_body(content((ImageOrVectorJson = "application/json"))),
    responses(
        (status = 201, description = "The item is new.", body = StoredJson),
        (status = 200, description = "It replaced an item with the same id.", body = StoredJson),
        WriteProblems,
    )
)]
pub(crate) async fn put_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut request: QueryRequest,
) -> Result<Response> {
    let options = &mut request.options;
    let GalleryParams { gallery } = options.take()?;
    let (label, metadata) = options.take::<ItemParams>()?.check()?;
    let input_options = take_input_options(options)?;
    request.options.reject_unknown()?;
    let entry = NewEntry {
        id: id.clone(),
        label: label.clone(),
        metadata: metadata.clone(),
        input: request.contents.single()?,
    };
    let stored = service
        .galleries()?
        .insert(&service.extractor, &gallery, vec![entry], &input_options)
        .await?;
    let Answers { binding, outcomes } = stored.value;
    let missing = || Err(Error::internal("the item has no outcome"));
    let written = outcomes.into_iter().next().unwrap_or_else(missing)?;
    let body = StoredJson {
        id,
        gallery,
        place: written.place(),
        label,
        metadata,
        created: written.is_created(),
        dim: binding.dim,
    };
    let mut response = json(&body, &stored.stages)?;
    if written.is_created() {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// A stored item, with its vector if requested.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemWithVector {
    #[serde(flatten)]
    item: ItemJson,
    /// Name of the gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Vector of the item, of length 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

/// Parts of an item to return.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct PartsParams {
    /// Whether to return the vector.
    #[param(default = false)]
    vector: bool,
}

/// Get an item.
#[utoipa::path(
    get,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(IdPath, GalleryParams, PartsParams),
    responses((status = 200, description = "The item.", body = ItemWithVector), GalleryProblems)
)]
pub(crate) async fn get_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut options: Options,
) -> Result<Json<ItemWithVector>> {
    let GalleryParams { gallery } = options.take()?;
    let PartsParams { vector } = options.take()?;
    options.reject_unknown()?;
    let parts = Parts {
        vector,
        ..Parts::NONE
    };
    let store = service.galleries()?.store();
    let stored = store.require_item(&gallery, &id, parts).await?;
    Ok(Json(ItemWithVector {
        item: stored.item.into(),
        gallery,
        vector: vector.then_some(stored.vector),
    }))
}

/// Delete an item.
#[utoipa::path(
    delete,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(IdPath, GalleryParams),
    responses((status = 204, description = "The item is deleted, also from disk."), GalleryProblems)
)]
pub(crate) async fn delete_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut options: Options,
) -> Result<StatusCode> {
    let GalleryParams { gallery } = options.take()?;
    options.reject_unknown()?;
    service.galleries()?.delete_item(&gallery, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
