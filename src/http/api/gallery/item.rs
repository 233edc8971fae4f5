//! `PUT`, `GET` and `DELETE /v1/gallery/{id}`.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Kind, Result},
    gallery::{GalleryName, ItemId, Label, Metadata, Parts},
    http::{
        api::{
            gallery::{
                GalleryOption, ItemJson, NamePath,
                schema::{
                    GalleryParams, GalleryProblems, ImageOrVectorJson, ItemParams, VectorParam,
                    VectorParams, WriteProblems,
                },
                take_facts,
            },
            schema::{File, ImageParams, ImagesForm},
        },
        request::{body::SubjectRequest, options::Options},
        response::negotiate::{Representation, answer},
    },
    service::{NewEntry, Service, VectorOptions},
};

/// What was stored.
#[derive(Serialize, ToSchema)]
pub(crate) struct StoredJson {
    /// The id.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// The gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Its place in the order of the gallery.
    #[schema(value_type = Option<u64>, required = false, example = 17)]
    place: u64,
    /// What it shows.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// What else is known of it.
    #[schema(value_type = Object, example = json!({"year": 2024}))]
    metadata: Metadata,
    /// Whether there was no item with this id.
    created: bool,
    /// Width of its vector.
    #[schema(example = 384)]
    dim: usize,
}

/// Store an item.
///
/// The image goes through the model once; its vector, its features for probes and a thumbnail are
/// kept. A vector that was made elsewhere can be sent in its place. An item that has the id already
/// is replaced. The answer comes when the item is safe on disk.
///
/// The first item makes the gallery, with the image options and `pooling`, `layers` that it is
/// given. From then on these are the gallery's: leave them out, others are refused.
#[utoipa::path(
    put,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(
        ("id" = String, Path, description = "Up to 512 bytes of UTF-8, percent-encoded: `/` is `%2F`.", example = "cats%2Fchelsea.jpg"),
        GalleryParams, ItemParams, ImageParams, VectorParams,
    ),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImageOrVectorJson = "application/json"),
    )),
    responses(
        (status = 201, description = "The item is new.", body = StoredJson),
        (status = 200, description = "It has replaced another.", body = StoredJson),
        WriteProblems,
    )
)]
pub(crate) async fn put_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    request: SubjectRequest,
) -> Result<Response> {
    let SubjectRequest {
        subjects,
        mut options,
        admission: _admission,
    } = request;
    let GalleryOption { gallery } = options.take()?;
    let (label, metadata) = take_facts(&mut options)?;
    let image = options.take_image()?;
    let vectors: VectorOptions = options.take()?;
    options.finish()?;
    let [subject] = <[_; 1]>::try_from(subjects).map_err(|subjects| {
        Error::new(
            Kind::Malformed,
            format!("an item has one image, not {}", subjects.len()),
        )
    })?;

    let entry = NewEntry {
        id: id.clone(),
        label: label.clone(),
        metadata: metadata.clone(),
        input: subject,
    };
    let stored = service
        .insert(&gallery, vec![entry], &image, &vectors)
        .await?;
    let written = stored
        .outcomes
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::internal("no outcome")))?;
    let body = StoredJson {
        id,
        gallery,
        place: written.place(),
        label,
        metadata,
        created: written.is_created(),
        dim: stored.binding.dim,
    };
    let body = serde_json::to_vec(&body).map_err(|error| Error::internal(error.to_string()))?;
    let mut response = answer(Representation::Json, body, &stored.stages);
    *response.status_mut() = if written.is_created() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(response)
}

/// A stored item, with its vector if that was asked for.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemWithVector {
    #[serde(flatten)]
    item: ItemJson,
    /// The gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Its vector, of length 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VectorOption {
    vector: bool,
}

/// Look up an item.
#[utoipa::path(
    get,
    path = "/v1/gallery/{id}",
    tag = "gallery",
    params(
        ("id" = String, Path, description = "The item's id, percent-encoded.", example = "cats%2Fchelsea.jpg"),
        GalleryParams, VectorParam,
    ),
    responses((status = 200, description = "The item.", body = ItemWithVector), GalleryProblems)
)]
pub(crate) async fn get_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut options: Options,
) -> Result<Json<ItemWithVector>> {
    let GalleryOption { gallery } = options.take()?;
    let VectorOption { vector } = options.take()?;
    options.finish()?;
    let stored = service
        .gallery()?
        .require_item(
            &gallery,
            &id,
            Parts {
                vector,
                ..Parts::NONE
            },
        )
        .await?;
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
    params(
        ("id" = String, Path, description = "The item's id, percent-encoded.", example = "cats%2Fchelsea.jpg"),
        GalleryParams,
    ),
    responses((status = 204, description = "It is gone, also from disk."), GalleryProblems)
)]
pub(crate) async fn delete_item(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    mut options: Options,
) -> Result<StatusCode> {
    let GalleryOption { gallery } = options.take()?;
    options.finish()?;
    service.delete_item(&gallery, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
