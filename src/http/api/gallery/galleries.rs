//! `GET /v1/galleries`, `GET` and `DELETE /v1/galleries/{name}`.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::Result,
    features::pool::Pooling,
    gallery::{Binding, GalleryInfo, GalleryName, no_gallery},
    http::{
        api::gallery::{NamePath, schema::GalleryProblems},
        request::options::Options,
    },
    service::Service,
    vision::{Background, ResampleFilter, ResizeMode},
};

/// The galleries, by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct Galleries {
    /// One entry per gallery.
    data: Vec<GalleryJson>,
}

/// A gallery, and what its vectors are.
#[derive(Serialize, ToSchema)]
pub(crate) struct GalleryJson {
    /// Its name.
    #[schema(value_type = String, example = "default")]
    name: GalleryName,
    /// How many items it has.
    #[schema(example = 20_000)]
    items: u64,
    /// How many of them the approximate index holds; the others are compared one by one.
    #[schema(example = 0)]
    indexed: u64,
    /// The model that its vectors are of.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Identifies the features: only vectors of the same fingerprint are taken.
    fingerprint: String,
    /// Whether this server runs that model, so that images can be stored and sought.
    takes_images: bool,
    /// Width of its vectors.
    #[schema(example = 384)]
    dim: usize,
    /// How tokens become a vector.
    #[schema(value_type = String, example = "cls")]
    pooling: Pooling,
    /// How many last blocks are joined.
    #[schema(example = 1)]
    layers: usize,
    /// The size that `resize` speaks of.
    #[schema(example = 224)]
    size: usize,
    /// The way of images to the model's grid.
    #[schema(value_type = String, example = "crop")]
    resize: ResizeMode,
    /// The resampling filter.
    #[schema(value_type = String, example = "bicubic")]
    filter: ResampleFilter,
    /// Whether images are turned upright.
    exif: bool,
    /// What stands behind transparent pixels.
    #[schema(value_type = String, example = "white")]
    background: Background,
}

impl GalleryJson {
    fn new(service: &Service, info: GalleryInfo) -> Self {
        let GalleryInfo {
            name,
            binding,
            items,
            indexed,
        } = info;
        let Binding {
            model,
            dim,
            pooling,
            layers,
            preprocessing,
        } = binding;
        Self {
            name,
            items,
            indexed,
            takes_images: model.fingerprint == *service.engine().fingerprint(),
            model: model.name,
            fingerprint: model.fingerprint.to_string(),
            dim,
            pooling,
            layers,
            size: preprocessing.size,
            resize: preprocessing.resize,
            filter: preprocessing.filter,
            exif: preprocessing.exif,
            background: preprocessing.background,
        }
    }
}

/// List the galleries.
#[utoipa::path(
    get,
    path = "/v1/galleries",
    tag = "gallery",
    responses((status = 200, description = "The galleries.", body = Galleries), GalleryProblems)
)]
pub(crate) async fn list_galleries(
    State(service): State<Service>,
    options: Options,
) -> Result<Json<Galleries>> {
    options.finish()?;
    let galleries = service.gallery()?.galleries().await?;
    Ok(Json(Galleries {
        data: galleries
            .into_iter()
            .map(|info| GalleryJson::new(&service, info))
            .collect(),
    }))
}

/// Look up a gallery.
#[utoipa::path(
    get,
    path = "/v1/galleries/{name}",
    tag = "gallery",
    params(("name" = String, Path, description = "The gallery.", example = "default")),
    responses((status = 200, description = "The gallery.", body = GalleryJson), GalleryProblems)
)]
pub(crate) async fn get_gallery(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    options: Options,
) -> Result<Json<GalleryJson>> {
    options.finish()?;
    let info = service.gallery()?.require_gallery(&name).await?;
    Ok(Json(GalleryJson::new(&service, info)))
}

/// Delete a gallery with all its items.
#[utoipa::path(
    delete,
    path = "/v1/galleries/{name}",
    tag = "gallery",
    params(("name" = String, Path, description = "The gallery.", example = "default")),
    responses((status = 204, description = "It is gone, also from disk."), GalleryProblems)
)]
pub(crate) async fn delete_gallery(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    options: Options,
) -> Result<StatusCode> {
    options.finish()?;
    match service.gallery()?.remove(&name).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_gallery(&name)),
    }
}
