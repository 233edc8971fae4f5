//! `/v1/bases`: stored PCA bases.

mod request;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::request::{BasisRequest, SampleParams, take_images};
use crate::{
    features::npy,
    gallery::BasisName,
    http::{
        Result,
        api::{
            features::maps::rows,
            schema::{File, ImageParams, ImagesJson},
        },
        openapi::GalleryProblems,
        request::{model::ModelParams, options::Options, path::NamePath},
        response::{
            answer::json,
            negotiate::{Representation, negotiate},
        },
    },
    service::{PCA_COMPONENTS, Service, StoredBasis},
    vision::{Background, Levels, ResampleFilter, ResizeMode},
};

/// Bases of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Bases {
    /// One entry per basis, ordered by name.
    data: Vec<Basis>,
}

/// A basis, and how it was fitted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Basis {
    /// Name.
    #[schema(value_type = String, example = "flowers")]
    name: BasisName,
    /// Name of the model of its features.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of the features.
    fingerprint: String,
    /// Width of a patch token.
    #[schema(example = 384)]
    dim: usize,
    /// Number of images that it was fitted on.
    #[schema(example = 64)]
    images: u64,
    /// Number of patches of these images.
    #[schema(example = 87616)]
    patches: u64,
    /// Size that `resize` refers to, in pixels.
    #[schema(example = 518)]
    size: usize,
    /// How the images were resized.
    #[schema(value_type = String, example = "fit")]
    resize: ResizeMode,
    /// Resampling filter.
    #[schema(value_type = String, example = "bicubic")]
    filter: ResampleFilter,
    /// Whether the EXIF orientation was applied.
    exif: bool,
    /// Color behind transparent pixels.
    #[schema(value_type = String, example = "white")]
    background: Background,
    /// Range of samples with 16 bits that became black to white.
    #[schema(value_type = String, example = "type")]
    levels: Levels,
    /// Share of the variance that each component explains.
    explained: Vec<f32>,
    /// Coordinates that are shown as 0 and as 1, per component: the 1st and the 99th percentile of
    /// the patches.
    ranges: Vec<[f32; 2]>,
}

impl From<&StoredBasis> for Basis {
    fn from(StoredBasis { name, about, basis }: &StoredBasis) -> Self {
        let preprocessing = &about.preprocessing;
        let ranges = basis.ranges().iter();
        Self {
            name: name.clone(),
            model: about.model.name.clone(),
            fingerprint: about.model.fingerprint.to_string(),
            dim: basis.pca().mean().len(),
            images: about.images,
            patches: about.patches,
            size: preprocessing.size,
            resize: preprocessing.resize,
            filter: preprocessing.filter,
            exif: preprocessing.exif,
            background: preprocessing.background,
            levels: preprocessing.levels,
            explained: basis.pca().explained().to_vec(),
            ranges: ranges.map(|range| [range.low, range.high]).collect(),
        }
    }
}

/// A basis with its mean and components.
#[derive(Serialize, ToSchema)]
pub(crate) struct BasisJson {
    #[serde(flatten)]
    basis: Basis,
    /// `[dim]`: mean that is subtracted from a token before projection.
    mean: Vec<f32>,
    /// `[components][dim]`: orthonormal vectors. The entry with the largest magnitude of each is
    /// positive.
    components: Vec<Vec<f32>>,
}

/// Options of a fit.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct FitParams {
    /// Number of components to store, and the maximum that `/v1/pca` can show.
    #[param(minimum = 1, default = 3)]
    components: usize,
}

impl Default for FitParams {
    fn default() -> Self {
        let components = PCA_COMPONENTS;
        Self { components }
    }
}

/// Fit a basis.
///
/// Fits principal components to the patch tokens of all images, and stores them. A basis with the
/// same name is replaced. Without a body, the thumbnails of the gallery `gallery` are used. `POST`
/// adds more images.
#[utoipa::path(
    put,
    path = "/v1/bases/{name}",
    tag = "features",
    params(
        (
            "name" = String, Path,
            description = "Name of the basis: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`. The \
                first is a letter or digit.",
        ),
        ModelParams, ImageParams, FitParams, SampleParams,
    ),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (status = 201, description = "The basis is new.", body = Basis),
        (status = 200, description = "The basis replaced one with the same name.", body = Basis),
        GalleryProblems,
    )
)]
pub(crate) async fn fit_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    mut request: BasisRequest,
) -> Result<Response> {
    let model = request.options.choose_model(&service)?.of_new();
    let image = request.options.take::<ImageParams>()?.into();
    let FitParams { components } = request.options.take()?;
    let images = take_images(request.files, request.options)?;
    let fitted = service
        .bases()?
        .fit(&model, &name, images, &image, components)
        .await?;
    let (basis, created) = fitted.value;
    let mut response = json(&Basis::from(&basis), &fitted.stages)?;
    if created {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Add images to a basis.
///
/// Fits the basis again on all images that it was ever given. The earlier images are not needed for
/// this. The new images are prepared with the options of the first fit.
#[utoipa::path(
    post,
    path = "/v1/bases/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the basis."), ModelParams, SampleParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (status = 200, description = "The basis, fitted on all images.", body = Basis),
        GalleryProblems,
    )
)]
pub(crate) async fn add_to_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    mut request: BasisRequest,
) -> Result<Response> {
    let model = request.options.choose_model(&service)?;
    let images = take_images(request.files, request.options)?;
    let bases = service.bases()?;
    let stored = bases.add(&model, &name, images).await?;
    json(&Basis::from(&stored.value), &stored.stages)
}

/// List the bases, all or those of one model.
#[utoipa::path(
    get,
    path = "/v1/bases",
    tag = "features",
    params(ModelParams),
    responses(
        (status = 200, description = "The bases, ordered by name.", body = Bases),
        GalleryProblems,
    )
)]
pub(crate) async fn list_bases(
    State(service): State<Service>,
    mut options: Options,
) -> Result<Json<Bases>> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let bases = service.bases()?.list().await?;
    let bases = bases
        .iter()
        .filter(|basis| model.may_be(&basis.about.model));
    let data = bases.map(Basis::from).collect();
    Ok(Json(Bases { data }))
}

/// Get a basis.
#[utoipa::path(
    get,
    path = "/v1/bases/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the basis."), ModelParams),
    responses(
        (
            status = 200,
            description = "The basis. `application/x-npy`: only its components, f32 \
                `[components, dim]`.",
            content((BasisJson = "application/json"), (File = "application/x-npy")),
        ),
        GalleryProblems,
    )
)]
pub(crate) async fn get_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    headers: HeaderMap,
    mut options: Options,
) -> Result<Response> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let representation = negotiate(&headers, &[Representation::Json, Representation::Npy])?;
    let stored = service.bases()?.get(&name).await?;
    model.allow(&stored.about.model, stored.holder())?;
    let pca = stored.basis.pca();
    let vary = (header::VARY, "accept");
    if representation == Representation::Npy {
        let kind = (header::CONTENT_TYPE, representation.media_type());
        return Ok(([kind, vary], npy::encode(&pca.components())?).into_response());
    }
    let basis = BasisJson {
        basis: Basis::from(&stored),
        mean: pca.mean().to_vec(),
        components: rows(pca.components()),
    };
    Ok(([vary], Json(basis)).into_response())
}

/// Delete a basis.
#[utoipa::path(
    delete,
    path = "/v1/bases/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the basis."), ModelParams),
    responses(
        (status = 204, description = "The basis is deleted."),
        GalleryProblems,
    )
)]
pub(crate) async fn delete_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    mut options: Options,
) -> Result<StatusCode> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let bases = service.bases()?;
    if model.is_named() {
        let stored = bases.get(&name).await?;
        model.allow(&stored.about.model, stored.holder())?;
    }
    bases.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
