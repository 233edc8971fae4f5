//! `PUT`, `GET`, `PATCH` and `DELETE /v1/gallery/{id}`.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::{ItemJson, WriteStatus},
    params::{
        ConflictParams, FeaturesParam, GalleryParams, IdPath, ItemParams, NewItemJson,
        VectorParams, take_input_options,
    },
};
use crate::{
    error::Error,
    gallery::{GalleryName, ItemChange, ItemId, Label, Metadata, Parts, Written},
    http::{
        Reason, Rejection, Result,
        api::schema::ImageParams,
        openapi::{GalleryProblems, WriteProblems},
        request::{
            body::{OptionsRequest, QueryRequest},
            model::ModelParams,
            options::{Options, parsed_object},
            path::NamePath,
        },
        response::{answer::json, problem::Problem},
    },
    service::{Answers, NewEntry, OnConflict, Service},
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
    /// Whether the item is new.
    created: bool,
    /// What was done. `skipped`: label, metadata and place are those of the stored item.
    status: WriteStatus,
    /// Width of its vector.
    #[schema(example = 384)]
    dim: usize,
}

/// Store an item.
///
/// Runs the model on the image, and stores its vector, its features for probes, and a thumbnail. A
/// vector from elsewhere can be sent instead of an image, with features for probes. An item with
/// the same id is replaced, unless `on_conflict` says otherwise; with the header
/// `If-None-Match: *` it stays, and the status is 412. The write is durable: the response is sent
/// only after fsync.
///
/// The first item creates the gallery, with its image options, `pooling` and `layers`. Later items
/// use these settings of the gallery: leave the options out, since other values are rejected.
#[utoipa::path(
    put,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(
        IdPath, GalleryParams, ModelParams, ConflictParams, ItemParams, ImageParams, VectorParams,
        (
            "If-None-Match" = Option<String>, Header, pattern = r"^\*$",
            description = "`*`: a stored item stays, and the status is 412.",
        ),
    ),
    request_body(content((NewItemJson = "application/json"))),
    responses(
        (status = 201, description = "The item is new.", body = StoredJson),
        (
            status = 200,
            description = "It replaced an item with the same id, or was skipped.",
            body = StoredJson,
        ),
        (
            status = 412,
            description = "The request has `If-None-Match: *`, and the id is stored already.",
            body = Problem, content_type = "application/problem+json",
        ),
        WriteProblems,
    )
)]
pub(crate) async fn put_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut request: QueryRequest,
) -> Result<Response> {
    let id = id.of_new_item()?;
    let options = &mut request.options;
    let GalleryParams { gallery } = options.take()?;
    let model = options.choose_model(&service)?;
    let conflict: ConflictParams = options.take()?;
    let must_be_new = must_be_new(&request.headers, &conflict)?;
    let on_conflict = match must_be_new {
        true => OnConflict::Skip,
        false => conflict.on_conflict.unwrap_or_default(),
    };
    let (label, metadata) = options.take::<ItemParams>()?.check()?;
    let FeaturesParam { features } = options.take()?;
    let input_options = take_input_options(options)?;
    request.options.reject_unknown()?;
    let entry = NewEntry {
        id: id.clone(),
        label: label.clone(),
        metadata: metadata.clone(),
        input: request.contents.single()?,
        features,
    };
    let galleries = service.galleries()?;
    let entries = vec![entry];
    let stored = galleries
        .insert(&model, &gallery, entries, &input_options, on_conflict)
        .await?;
    let Answers { binding, outcomes } = stored.value;
    let missing = || Err(Error::internal("the item has no outcome"));
    let written = outcomes.into_iter().next().unwrap_or_else(missing)?;
    let (label, metadata) = match written {
        Written::Kept { .. } if must_be_new => return Err(is_stored(&gallery, &id)),
        Written::Kept { .. } => {
            let store = galleries.store();
            let kept = store.require_item(&gallery, &id, Parts::NONE).await?;
            (kept.item.label, kept.item.metadata)
        }
        Written::Created { .. } | Written::Replaced { .. } => (label, metadata),
    };
    let body = StoredJson {
        id,
        gallery,
        place: written.place(),
        label,
        metadata,
        created: written.is_created(),
        status: written.into(),
        dim: binding.dim,
    };
    let mut response = json(&body, &stored.stages)?;
    if written.is_created() {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Returns whether the request has `If-None-Match: *`: it must not replace an item.
fn must_be_new(headers: &HeaderMap, conflict: &ConflictParams) -> Result<bool, Error> {
    let Some(value) = headers.get(header::IF_NONE_MATCH) else {
        return Ok(false);
    };
    if value.as_bytes().trim_ascii() != b"*" {
        let detail = "the If-None-Match header must be `*`; items have no entity tags";
        return Err(Error::malformed(detail));
    }
    if conflict.on_conflict.is_some() {
        let detail = "cannot be combined with the If-None-Match header; leave one of them out";
        return Err(Error::option("on_conflict", detail));
    }
    Ok(true)
}

fn is_stored(gallery: &GalleryName, id: &ItemId) -> Rejection {
    let detail = format!(
        "the gallery `{gallery}` already has an item {:?}; choose another id, or leave \
         If-None-Match out to replace it",
        id.as_str()
    );
    Rejection::new(Reason::PreconditionFailed, detail)
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
    params(IdPath, GalleryParams, ModelParams, PartsParams),
    responses((status = 200, description = "The item.", body = ItemWithVector), GalleryProblems)
)]
pub(crate) async fn get_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut options: Options,
) -> Result<Json<ItemWithVector>> {
    let GalleryParams { gallery } = options.take()?;
    options.check_model_of(&service, &gallery).await?;
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

/// Label and metadata to change.
#[derive(Default, Deserialize, ToSchema, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangeParams {
    /// New label, up to 256 bytes; an empty one removes the label.
    #[param(example = "cat")]
    #[schema(example = "cat")]
    label: Option<String>,
    /// New metadata, a JSON object of up to 16 KiB, in place of all that is stored; an empty one
    /// removes the metadata. In a JSON body, the object itself.
    #[param(value_type = String, example = r#"{"year": 2024}"#)]
    #[schema(value_type = Option<Object>, example = json!({"year": 2024}))]
    metadata: Option<Value>,
}

impl ChangeParams {
    fn check(self) -> Result<ItemChange, Error> {
        let label = self.label.map(|label| match label.as_str() {
            "" => Ok(None),
            _ => Label::new(label).map(Some),
        });
        let metadata = parsed_object("metadata", self.metadata)?;
        let change = ItemChange {
            label: label.transpose()?,
            metadata: metadata.map(Metadata::from_value).transpose()?,
        };
        if change == ItemChange::default() {
            let detail = "missing; send `label`, `metadata` or both";
            return Err(Error::option("label", detail));
        }
        Ok(change)
    }
}

/// Change the label or the metadata of an item.
///
/// What is not sent, or is null, stays, and so do the vector, the features and the thumbnail. Only
/// the time of the last write is new. The write is durable: the response is sent only after fsync.
#[utoipa::path(
    patch,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(IdPath, GalleryParams, ModelParams, ChangeParams),
    request_body(content((ChangeParams = "application/json"))),
    responses(
        (status = 200, description = "The changed item.", body = ItemWithVector),
        WriteProblems,
    )
)]
pub(crate) async fn update_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    OptionsRequest(mut options): OptionsRequest,
) -> Result<Json<ItemWithVector>> {
    let GalleryParams { gallery } = options.take()?;
    options.check_model_of(&service, &gallery).await?;
    let change = options.take::<ChangeParams>()?.check();
    options.reject_unknown()?;
    let galleries = service.galleries()?;
    let item = galleries.update_item(&gallery, &id, change?).await?;
    Ok(Json(ItemWithVector {
        item: item.into(),
        gallery,
        vector: None,
    }))
}

/// Delete an item.
#[utoipa::path(
    delete,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(IdPath, GalleryParams, ModelParams),
    responses((status = 204, description = "The item is deleted, also from disk."), GalleryProblems)
)]
pub(crate) async fn delete_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut options: Options,
) -> Result<StatusCode> {
    let GalleryParams { gallery } = options.take()?;
    options.check_model_of(&service, &gallery).await?;
    options.reject_unknown()?;
    service.galleries()?.delete_item(&gallery, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
