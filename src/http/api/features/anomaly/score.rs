//! `POST /v1/anomaly/{name}/score`.

use axum::{
    extract::{FromRequest, Request, State},
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    gallery::BankName,
    http::{
        AppState, Rejection, Result,
        api::{
            features::maps::{PICTURE_OFFERS, PictureRequest, answer_file, check_overlay},
            schema::{DecodeParams, File, ImagesJson, ObjectOutput},
        },
        openapi::SearchProblems,
        request::{model::ModelParams, path::NamePath},
        response::negotiate::Representation,
    },
    service::{AnomalyForms, AnomalyPicture, Extractor, ImageAnomaly, Service},
};

/// Options of a score.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ScoreParams {
    /// Picture. `overlay`: the image as the model sees it, with unusual patches in warm colors and
    /// frames around defects. `mask`: an indexed PNG as large as the photograph, 1 in the patches
    /// of the boxes.
    #[param(inline)]
    output: ObjectOutput,
    /// Opacity of the colors of `output=overlay`.
    #[param(minimum = 0.0, maximum = 1.0, default = 0.8)]
    overlay: f32,
}

impl Default for ScoreParams {
    fn default() -> Self {
        Self {
            output: ObjectOutput::default(),
            overlay: AnomalyPicture::OPACITY,
        }
    }
}

/// A request with one image to score.
pub(crate) struct ScoreRequest {
    image: Bytes,
    request: PictureRequest<ScoreParams>,
}

impl FromRequest<AppState> for ScoreRequest {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let request = PictureRequest::read_as::<DecodeParams>(request, state, &PICTURE_OFFERS);
        let mut request = request.await?;
        let [image] = request.take_images("scoring")?;
        Ok(Self { image, request })
    }
}

/// How an image compares with a bank.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnomalyJson {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of the features.
    fingerprint: String,
    /// Mean of the largest 1 % of the distances of its patches, 0 to 2.
    #[schema(example = 0.31)]
    score: f32,
    /// Score above which an image is anomalous; null for a bank of one image.
    #[schema(required, example = 0.21)]
    threshold: Option<f32>,
    /// Whether the score is above the threshold; null without one.
    #[schema(required)]
    anomalous: Option<bool>,
    /// Unusual places, the most unusual first: groups of patches whose distance is above the
    /// threshold and above 60 % of the largest one. Empty if the image is not anomalous.
    boxes: Vec<DefectJson>,
    /// Width of the upright image, in pixels.
    #[schema(example = 640)]
    width: usize,
    /// Height of the upright image, in pixels.
    #[schema(example = 480)]
    height: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `size` to which the image was resized, in pixels.
    #[schema(example = 518)]
    size: usize,
}

/// An unusual place.
#[derive(Serialize, ToSchema)]
struct DefectJson {
    /// Left, top, right and bottom, in pixels of the upright image.
    #[serde(rename = "box")]
    #[schema(example = json!([301.0, 112.0, 357.0, 182.0]))]
    bounds: [f64; 4],
    /// Its largest distance, 0 to 2.
    #[schema(example = 0.42)]
    score: f32,
}

impl AnomalyJson {
    pub(crate) fn new(model: &Extractor, found: &ImageAnomaly) -> Self {
        Self {
            model: model.name().to_owned(),
            fingerprint: model.engine().fingerprint().to_owned(),
            score: found.score,
            threshold: found.threshold,
            anomalous: found.is_anomalous(),
            boxes: found
                .defects
                .iter()
                .map(|defect| DefectJson {
                    bounds: defect.bounds,
                    score: defect.score,
                })
                .collect(),
            width: found.placement.image.width,
            height: found.placement.image.height,
            grid: [found.grid.height, found.grid.width],
            size: found.size,
        }
    }
}

/// Score an image with an anomaly bank.
///
/// Compares each patch of the image with those of the bank's good images. The image is prepared
/// with the options of the bank.
#[utoipa::path(
    post,
    path = "/v1/anomaly/{name}/score",
    tag = "features",
    params(
        ("name" = String, Path, description = "Name of the bank."),
        ModelParams, ScoreParams, DecodeParams,
    ),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "`image/png`: unusual places over the image, or their mask. \
                `application/x-npy`: distances to the bank, f32 `[height, width]`, at the size of \
                the photograph; 0 where the model saw nothing.",
            content(
                (File = "image/png"),
                (AnomalyJson = "application/json"),
                (File = "application/x-npy"),
            ),
        ),
        SearchProblems,
    )
)]
pub(crate) async fn score_image(
    State(service): State<Service>,
    NamePath(name): NamePath<BankName>,
    ScoreRequest { image, request }: ScoreRequest,
) -> Result<Response> {
    let params = request.options;
    check_overlay(params.overlay)?;
    let is_picture = request.representation == Representation::Png;
    let picture = match params.output {
        ObjectOutput::Overlay => AnomalyPicture::Overlay(params.overlay),
        ObjectOutput::Mask => AnomalyPicture::Mask,
    };
    let forms = AnomalyForms {
        npy: request.representation == Representation::Npy,
        picture: is_picture.then_some(picture),
    };
    let decoding = request.image.decode;
    let scored = service
        .banks()?
        .score(&request.model, &name, image, decoding, forms)
        .await?;
    let (model, mut found) = scored;
    let file = found.value.npy.take().or(found.value.png.take());
    answer_file(
        request.representation,
        file,
        || AnomalyJson::new(&model, &found.value),
        &[found.value.size],
        &found.stages,
    )
}
