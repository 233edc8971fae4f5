//! `/v1/segmenters` and `POST /v1/segment`: classes of pixels, learned from masks.

pub(crate) mod segment;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    features::probe::TrainingOptions,
    gallery::SegmenterName,
    http::{
        AppState, Result,
        api::{
            job::{TrainedJson, TrainedList, WaitParams, answer_job},
            schema::{ImageParams, MaskedImagesJson, Prepared},
        },
        openapi::{GalleryProblems, WriteProblems},
        request::{
            body::{BodyRequest, MaskedImageRequest},
            contents::MaskedImages,
            model::ModelParams,
            options::Options,
            path::NamePath,
        },
    },
    service::{ModelChoice, Segmenter, SegmenterOptions, Service},
};

/// A segmenter and the state of its training.
#[derive(Serialize, ToSchema)]
pub(crate) struct SegmenterJson {
    #[serde(flatten)]
    state: TrainedJson,
    /// The stored segmenter. It stays while a new one of the same name is being trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    segmenter: Option<StoredSegmenterJson>,
}

/// A trained segmenter.
#[derive(Serialize, ToSchema)]
struct StoredSegmenterJson {
    /// Name of the model of its features.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of these features.
    fingerprint: String,
    /// Number of last blocks whose patch tokens are joined.
    #[schema(example = 1)]
    layers: usize,
    /// Classes that it tells apart: the values of the masks.
    #[schema(example = json!([0, 1]))]
    classes: Vec<usize>,
    /// Number of images that it was trained on.
    #[schema(example = 5)]
    images: usize,
    /// Number of patches that it was trained on.
    #[schema(example = 6_845)]
    patches: usize,
    /// Share of the patches that were classified correctly while their images were held out; null
    /// for one image.
    #[schema(required, example = 0.97)]
    accuracy: Option<f64>,
    /// Strength of the L2 penalty on its weights.
    #[schema(example = 100.0)]
    l2: f64,
    /// Whether the training converged. If not, a larger `l2` helps.
    converged: bool,
    #[serde(flatten)]
    prepared: Prepared,
    /// Time of the training, in milliseconds since 1970.
    trained_ms: u64,
}

impl From<Segmenter> for StoredSegmenterJson {
    fn from(segmenter: Segmenter) -> Self {
        let Segmenter {
            probe,
            classes,
            info,
        } = segmenter;
        Self {
            model: info.model.name,
            fingerprint: info.model.fingerprint.to_string(),
            layers: info.layers,
            classes: classes.into_iter().map(usize::from).collect(),
            images: info.images,
            patches: probe.examples,
            accuracy: (info.images > 1).then_some(probe.accuracy),
            l2: probe.l2,
            converged: probe.converged,
            prepared: Prepared::from(&info.preprocessing),
            trained_ms: info.trained_ms,
        }
    }
}

/// Options of a segmenter.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SegmenterParams {
    /// Number of last blocks whose patch tokens are joined, 1 to 4.
    #[param(minimum = 1, default = 1)]
    layers: usize,
    /// Strength of the L2 penalty on the weights. The objective is that of scikit-learn's
    /// `LogisticRegression` with `C = 1/l2`. By default 100, or for 10 images and more what
    /// cross-validation chooses of 1000, 100 and 10.
    #[param(minimum = 0.000001, maximum = 1_000_000_000.0, example = 100.0)]
    l2: Option<f64>,
    /// Number of folds of the cross-validation, which hold out whole images. It is reduced to the
    /// number of images.
    #[param(minimum = 2, maximum = 20, default = 5)]
    folds: usize,
}

impl Default for SegmenterParams {
    fn default() -> Self {
        let SegmenterOptions { layers, training } = SegmenterOptions::default();
        Self {
            layers,
            l2: training.l2,
            folds: training.folds,
        }
    }
}

/// Train a segmenter.
///
/// Fits a linear head on the tokens of patches to a few images with masks. The mask of an image is
/// a PNG of its size, upright, with a palette or in grey: the value of a pixel is its class, 0 to
/// 254, and pixels of 255 are left out. Images and masks are sent in the same order, up to
/// `--max-images` of them. The training runs in the background, one at a time, and replaces a
/// segmenter with the same name when it succeeds.
#[utoipa::path(
    put,
    path = "/v1/segmenters/{name}",
    tag = "features",
    params(
        (
            "name" = String, Path,
            description = "Name of the segmenter: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`. \
                The first is a letter or digit.",
        ),
        ModelParams, SegmenterParams, WaitParams, ImageParams,
    ),
    request_body(content((MaskedImagesJson = "application/json"))),
    responses(
        (
            status = 202, description = "The training has begun. `Location` is its URL.",
            body = SegmenterJson,
        ),
        (status = 200, description = "With `wait`: the segmenter is ready.", body = SegmenterJson),
        WriteProblems,
    )
)]
pub(crate) async fn train_segmenter(
    State(state): State<AppState>,
    NamePath(name): NamePath<SegmenterName>,
    request: MaskedImageRequest,
) -> Result<Response> {
    let service = &state.service;
    let BodyRequest {
        contents: MaskedImages(images),
        mut options,
        ..
    } = request;
    let model = options.choose_model(service)?;
    let image = options.take::<ImageParams>()?.into();
    let params: SegmenterParams = options.take()?;
    let wait: WaitParams = options.take()?;
    options.reject_unknown()?;
    let defaults = SegmenterOptions::default();
    let options = SegmenterOptions {
        layers: params.layers,
        training: TrainingOptions {
            l2: params.l2,
            folds: params.folds,
            ..defaults.training
        },
    };
    let segmenters = service.segmenters()?;
    let extractor = model.of_new();
    let training = segmenters.learn(&extractor, &name, images, &image, options);
    let ended = wait.wait(&state, &*training.await?).await?;
    let segmenter = segmenter_json(service, &model, &name).await?;
    Ok(answer_job(ended, (&name).into(), segmenter))
}

/// List the segmenters.
#[utoipa::path(
    get,
    path = "/v1/segmenters",
    tag = "features",
    responses(
        (status = 200, description = "The segmenters, ordered by name.", body = TrainedList),
        GalleryProblems,
    )
)]
pub(crate) async fn list_segmenters(
    State(service): State<Service>,
    options: Options,
) -> Result<Json<TrainedList>> {
    options.reject_unknown()?;
    Ok(Json(TrainedList::new(service.segmenters()?.list().await?)))
}

/// Get a segmenter and the progress of its training.
#[utoipa::path(
    get,
    path = "/v1/segmenters/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the segmenter."), ModelParams),
    responses((status = 200, description = "The segmenter.", body = SegmenterJson), GalleryProblems)
)]
pub(crate) async fn get_segmenter(
    State(service): State<Service>,
    NamePath(name): NamePath<SegmenterName>,
    mut options: Options,
) -> Result<Json<SegmenterJson>> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    segmenter_json(&service, &model, &name).await
}

/// Delete a segmenter. Its training is stopped.
#[utoipa::path(
    delete,
    path = "/v1/segmenters/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the segmenter."), ModelParams),
    responses((status = 204, description = "The segmenter is deleted."), GalleryProblems)
)]
pub(crate) async fn delete_segmenter(
    State(service): State<Service>,
    NamePath(name): NamePath<SegmenterName>,
    mut options: Options,
) -> Result<StatusCode> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let segmenters = service.segmenters()?;
    if model.is_named() {
        segmenters.get(&model, &name).await?;
    }
    segmenters.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn segmenter_json(
    service: &Service,
    model: &ModelChoice,
    name: &SegmenterName,
) -> Result<Json<SegmenterJson>> {
    let (state, segmenter) = service.segmenters()?.get(model, name).await?;
    Ok(Json(SegmenterJson {
        state: TrainedJson::new(name.as_str(), state),
        segmenter: segmenter.map(StoredSegmenterJson::from),
    }))
}
