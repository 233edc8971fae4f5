//! `GET /v1/galleries`, and `GET`, `PATCH` and `DELETE /v1/galleries/{name}`.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::Error,
    features::pool::Pooling,
    gallery::{GalleryInfo, GalleryName, no_gallery},
    http::{
        Result,
        openapi::{GalleryProblems, SearchProblems},
        request::{body::OptionsRequest, model::ModelParams, options::Options, path::NamePath},
    },
    service::Service,
    vision::{Background, Levels, ResampleFilter, ResizeMode},
};

/// Galleries, ordered by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct Galleries {
    /// One entry per gallery.
    data: Vec<GalleryJson>,
}

/// A gallery, and how its vectors were made.
#[derive(Serialize, ToSchema)]
pub(crate) struct GalleryJson {
    /// Name.
    #[schema(value_type = String, example = "default")]
    name: GalleryName,
    /// Number of items.
    #[schema(example = 20_000)]
    items: u64,
    /// Number of items in the approximate index. The others are compared one by one.
    #[schema(example = 0)]
    indexed: u64,
    /// Name of the model of its vectors.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of the features. The gallery accepts only vectors with the same fingerprint.
    fingerprint: String,
    /// Whether this server runs that model, so that images can be stored and searched for.
    takes_images: bool,
    /// Width of its vectors.
    #[schema(example = 384)]
    dim: usize,
    /// How tokens are pooled into a vector.
    #[schema(value_type = String, example = "cls")]
    pooling: Pooling,
    /// Number of last blocks whose pooled vectors are concatenated.
    #[schema(example = 1)]
    layers: usize,
    /// Size that `resize` refers to, in pixels.
    #[schema(example = 224)]
    size: usize,
    /// How images are resized.
    #[schema(value_type = String, example = "crop")]
    resize: ResizeMode,
    /// Resampling filter.
    #[schema(value_type = String, example = "bicubic")]
    filter: ResampleFilter,
    /// Whether the EXIF orientation is applied.
    exif: bool,
    /// Color behind transparent pixels.
    #[schema(value_type = String, example = "white")]
    background: Background,
    /// Range of samples with 16 bits that becomes black to white.
    #[schema(value_type = String, example = "type")]
    levels: Levels,
}

impl GalleryJson {
    fn new(service: &Service, info: GalleryInfo) -> Self {
        let model = info.binding.model;
        let preprocessing = info.binding.preprocessing;
        Self {
            name: info.name,
            items: info.items,
            indexed: info.indexed,
            takes_images: service.models().is_served(&model),
            model: model.name,
            fingerprint: model.fingerprint.to_string(),
            dim: info.binding.dim,
            pooling: info.binding.pooling,
            layers: info.binding.layers,
            size: preprocessing.size,
            resize: preprocessing.resize,
            filter: preprocessing.filter,
            exif: preprocessing.exif,
            background: preprocessing.background,
            levels: preprocessing.levels,
        }
    }
}

/// List the galleries, all or those of one model.
#[utoipa::path(
    get,
    path = "/v1/galleries",
    tag = "gallery",
    params(ModelParams),
    responses((status = 200, description = "The galleries.", body = Galleries), GalleryProblems)
)]
pub(crate) async fn list_galleries(
    State(service): State<Service>,
    mut options: Options,
) -> Result<Json<Galleries>> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let galleries = service.galleries()?.store().galleries().await?.into_iter();
    let data = galleries
        .filter(|info| model.may_be(&info.binding.model))
        .map(|info| GalleryJson::new(&service, info))
        .collect();
    Ok(Json(Galleries { data }))
}

/// Get a gallery.
#[utoipa::path(
    get,
    path = "/v1/galleries/{name}",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    responses((status = 200, description = "The gallery.", body = GalleryJson), GalleryProblems)
)]
pub(crate) async fn get_gallery(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<Json<GalleryJson>> {
    options.check_model_of(&service, &name).await?;
    options.reject_unknown()?;
    let info = service.galleries()?.store().require_gallery(&name).await?;
    Ok(Json(GalleryJson::new(&service, info)))
}

/// New name of a gallery.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct RenameJson {
    /// New name, which no other gallery has.
    #[schema(required, value_type = String, example = "photos")]
    to: Option<GalleryName>,
}

/// Rename a gallery.
///
/// Requests with the old name find nothing from then on. Probes that were trained on the gallery
/// stay as they are.
#[utoipa::path(
    patch,
    path = "/v1/galleries/{name}",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    request_body(content((RenameJson = "application/json"))),
    responses(
        (status = 200, description = "The renamed gallery.", body = GalleryJson),
        SearchProblems,
    )
)]
pub(crate) async fn rename_gallery(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    OptionsRequest(mut options): OptionsRequest,
) -> Result<Json<GalleryJson>> {
    options.check_model_of(&service, &name).await?;
    let RenameJson { to } = options.take()?;
    options.reject_unknown()?;
    let to = to.ok_or_else(|| Error::option("to", "required: the new name of the gallery"))?;
    service.rename_gallery(&name, &to).await?;
    let info = service.galleries()?.store().require_gallery(&to).await?;
    Ok(Json(GalleryJson::new(&service, info)))
}

/// Delete a gallery with all its items, its audit and its map.
#[utoipa::path(
    delete,
    path = "/v1/galleries/{name}",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    responses(
        (status = 204, description = "The gallery is deleted, also from disk."),
        GalleryProblems,
    )
)]
pub(crate) async fn delete_gallery(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<StatusCode> {
    options.check_model_of(&service, &name).await?;
    options.reject_unknown()?;
    match service.remove_gallery(&name).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_gallery(&name).into()),
    }
}
