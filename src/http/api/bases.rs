//! `/v1/bases`: PCA bases that are kept.

use axum::{
    Json,
    body::HttpBody,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    features::npy,
    gallery::{BasisName, GalleryName},
    http::{
        AppState,
        api::{
            gallery::{NamePath, schema::GalleryProblems},
            schema::{
                BasisFitParams, BasisImagesParams, File, ImageParams, ImagesForm, ImagesJson,
            },
        },
        request::{admission::Admission, body::ImageRequest, options::Options},
        response::negotiate::{Representation, answer, negotiate},
    },
    service::{BasisImages, PCA_COMPONENTS, Service, Stages, StoredBasis},
    vision::{Background, ResampleFilter, ResizeMode},
};

/// The bases of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Bases {
    /// One entry per basis, by name.
    data: Vec<Basis>,
}

/// A basis, and how it came about.
#[derive(Serialize, ToSchema)]
pub(crate) struct Basis {
    /// Its name.
    #[schema(value_type = String, example = "flowers")]
    name: BasisName,
    /// The model of its features.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Identifies the features.
    fingerprint: String,
    /// Width of a patch token.
    #[schema(example = 384)]
    dim: usize,
    /// How many images it was fitted on.
    #[schema(example = 64)]
    images: u64,
    /// How many patches these had.
    #[schema(example = 87616)]
    patches: u64,
    /// The `size` at which they were seen.
    #[schema(example = 518)]
    size: usize,
    /// The way to that size.
    #[schema(value_type = String, example = "fit")]
    resize: ResizeMode,
    /// The resampling filter.
    #[schema(value_type = String, example = "bicubic")]
    filter: ResampleFilter,
    /// Whether they were turned upright.
    exif: bool,
    /// What stood behind transparent pixels.
    #[schema(value_type = String, example = "white")]
    background: Background,
    /// Share of the variance that each component explains.
    explained: Vec<f32>,
    /// Per component, the coordinates that are shown as 0 and as 1: of a hundred patches one lies
    /// below and one above.
    ranges: Vec<[f32; 2]>,
}

/// A basis with its numbers.
#[derive(Serialize, ToSchema)]
pub(crate) struct BasisJson {
    #[serde(flatten)]
    basis: Basis,
    /// `[dim]`: what is taken off a token before it is projected.
    mean: Vec<f32>,
    /// `[components][dim]`, orthonormal; the entry of largest magnitude of each is positive.
    components: Vec<Vec<f32>>,
}

/// The options of a fit beside those of images.
#[derive(Deserialize)]
#[serde(default)]
struct FitOptions {
    components: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            components: PCA_COMPONENTS,
        }
    }
}

/// Options that name images which the server has.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SampleOptions {
    gallery: Option<GalleryName>,
    sample: Option<usize>,
}

/// Thumbnails that are taken of a gallery if the request does not say how many.
const SAMPLE: usize = 100;
/// More would only take longer than a request may.
const MOST_SAMPLED: usize = 1000;

/// Fit a basis.
///
/// Fits principal components on the patch tokens of all images and keeps them; a basis of that name
/// is replaced. Without a body, `gallery` names a gallery whose thumbnails are used. Other images
/// can be added with `POST`.
#[utoipa::path(
    put,
    path = "/v1/bases/{name}",
    tag = "features",
    params(
        ("name" = String, Path, description = "1 to 64 of a-z, 0-9, - and _; the first a letter or digit."),
        ImageParams, BasisFitParams, BasisImagesParams,
    ),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImagesJson = "application/json"),
    )),
    responses(
        (status = 201, description = "The basis is kept.", body = Basis),
        (status = 200, description = "It is kept in place of another.", body = Basis),
        GalleryProblems,
    )
)]
pub(crate) async fn fit_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    request: BasisRequest,
) -> Result<Response> {
    let BasisRequest {
        files,
        mut options,
        admission: _admission,
    } = request;
    let image = options.take_image()?;
    let FitOptions { components } = options.take()?;
    let images = images(files, options)?;
    let (kept, new, stages) = service.fit_basis(&name, images, &image, components).await?;
    let mut response = answer_basis(&kept, &stages)?;
    if new {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Add images to a basis.
///
/// The basis is fitted anew on all images that it ever got, without seeing the old ones again. The
/// new ones are seen with the options of the first.
#[utoipa::path(
    post,
    path = "/v1/bases/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Which basis."), BasisImagesParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImagesJson = "application/json"),
    )),
    responses(
        (status = 200, description = "The basis, fitted on more images.", body = Basis),
        GalleryProblems,
    )
)]
pub(crate) async fn add_to_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    request: BasisRequest,
) -> Result<Response> {
    let BasisRequest {
        files,
        options,
        admission: _admission,
    } = request;
    let (kept, stages) = service.add_to_basis(&name, images(files, options)?).await?;
    answer_basis(&kept, &stages)
}

/// List the bases.
#[utoipa::path(
    get,
    path = "/v1/bases",
    tag = "features",
    responses((status = 200, description = "The bases, by name.", body = Bases), GalleryProblems)
)]
pub(crate) async fn list_bases(
    State(service): State<Service>,
    options: Options,
) -> Result<Json<Bases>> {
    options.finish()?;
    Ok(Json(Bases {
        data: service.bases().await?.iter().map(describe).collect(),
    }))
}

/// Get a basis.
#[utoipa::path(
    get,
    path = "/v1/bases/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Which basis.")),
    responses(
        (status = 200, description = "The basis; `application/x-npy`: its components alone, f32 `[components, dim]`.",
            content((BasisJson = "application/json"), (File = "application/x-npy"))),
        GalleryProblems,
    )
)]
pub(crate) async fn get_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    headers: HeaderMap,
    options: Options,
) -> Result<Response> {
    options.finish()?;
    let representation = negotiate(&headers, &[Representation::Json, Representation::Npy])?;
    let kept = service.basis(&name).await?;
    let pca = kept.basis.pca();
    let vary = (header::VARY, "accept");
    if representation == Representation::Npy {
        let kind = (header::CONTENT_TYPE, representation.media_type());
        return Ok(([kind, vary], npy::encode(&pca.components())?).into_response());
    }
    let components = pca
        .components()
        .rows()
        .into_iter()
        .map(|row| row.to_vec())
        .collect();
    let basis = BasisJson {
        basis: describe(&kept),
        mean: pca.mean().to_vec(),
        components,
    };
    Ok(([vary], Json(basis)).into_response())
}

/// Delete a basis.
#[utoipa::path(
    delete,
    path = "/v1/bases/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Which basis.")),
    responses(
        (status = 204, description = "It is gone."),
        GalleryProblems,
    )
)]
pub(crate) async fn delete_basis(
    State(service): State<Service>,
    NamePath(name): NamePath<BasisName>,
    options: Options,
) -> Result<StatusCode> {
    options.finish()?;
    service.remove_basis(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A request with image files, or without a body if its query names a gallery.
pub(crate) struct BasisRequest {
    files: Vec<Bytes>,
    options: Options,
    /// The request's place, until the answer is ready.
    admission: Admission,
}

impl FromRequest<AppState> for BasisRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if !query
            .split('&')
            .any(|option| option.starts_with("gallery="))
        {
            let ImageRequest {
                images,
                options,
                admission,
                ..
            } = ImageRequest::from_request(request, state).await?;
            return Ok(Self {
                files: images,
                options,
                admission,
            });
        }
        let (mut parts, body) = request.into_parts();
        let admission = Admission::from_request_parts(&mut parts, state).await?;
        if !body.is_end_stream() {
            return Err(gallery_and_images());
        }
        let mut options = Options::default();
        options.add_query(&query)?;
        Ok(Self {
            files: Vec::new(),
            options,
            admission,
        })
    }
}

fn gallery_and_images() -> Error {
    Error::option(
        "gallery",
        "stands in the query of a request without a body; send images, or name a gallery",
    )
}

/// The images that a request means; takes the last of its options.
fn images(files: Vec<Bytes>, mut options: Options) -> Result<BasisImages> {
    let SampleOptions { gallery, sample } = options.take()?;
    options.finish()?;
    match (gallery, sample) {
        (Some(_), _) if !files.is_empty() => Err(gallery_and_images()),
        (None, Some(_)) => Err(Error::option(
            "sample",
            "goes with `gallery`, of which it is taken",
        )),
        (None, None) => Ok(BasisImages::Files(files)),
        (Some(name), sample) => {
            let sample = sample.unwrap_or(SAMPLE);
            if sample == 0 || sample > MOST_SAMPLED {
                let detail = format!("{sample} is out of range; it must be 1 to {MOST_SAMPLED}");
                return Err(Error::option("sample", detail));
            }
            Ok(BasisImages::Gallery { name, sample })
        }
    }
}

fn answer_basis(kept: &StoredBasis, stages: &Stages) -> Result<Response> {
    let body =
        serde_json::to_vec(&describe(kept)).map_err(|error| Error::internal(error.to_string()))?;
    Ok(answer(Representation::Json, body, stages))
}

fn describe(StoredBasis { name, about, basis }: &StoredBasis) -> Basis {
    let preprocessing = &about.preprocessing;
    Basis {
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
        explained: basis.pca().explained().to_vec(),
        ranges: basis
            .ranges()
            .iter()
            .map(|range| [range.low, range.high])
            .collect(),
    }
}
