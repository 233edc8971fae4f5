//! `POST /v1/segment`.

use axum::{
    extract::{FromRequest, Request, State},
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::Error,
    gallery::SegmenterName,
    http::{
        AppState, Rejection, Result,
        api::{
            features::maps::{PICTURE_OFFERS, PictureRequest, answer_file, check_overlay},
            mask::MaskJson,
            schema::{DecodeParams, File, ImagesJson, SegmentOutput},
        },
        openapi::SearchProblems,
        request::model::ModelParams,
        response::negotiate::Representation,
    },
    service::{Extractor, ImageSegments, SegmentForms, SegmentPicture, Service},
};

/// Options of segments.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SegmentParams {
    /// Name of the segmenter. Required.
    #[param(value_type = String, example = "leaves")]
    segmenter: Option<SegmenterName>,
    /// Picture. `mask`: an indexed PNG as large as the photograph, whose pixels are classes; 255
    /// where the model saw nothing. `overlay`: the image as the model sees it, with the classes
    /// from 1 on in colors.
    #[param(inline)]
    output: SegmentOutput,
    /// Opacity of the colors of `output=overlay`.
    #[param(minimum = 0.0, maximum = 1.0, default = 0.8)]
    overlay: f32,
}

impl Default for SegmentParams {
    fn default() -> Self {
        Self {
            segmenter: None,
            output: SegmentOutput::default(),
            overlay: SegmentPicture::OPACITY,
        }
    }
}

/// A request with one image to segment.
pub(crate) struct SegmentRequest {
    image: Bytes,
    request: PictureRequest<SegmentParams>,
}

impl FromRequest<AppState> for SegmentRequest {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let request = PictureRequest::read_as::<DecodeParams>(request, state, &PICTURE_OFFERS);
        let mut request = request.await?;
        let [image] = request.take_images("segmentation")?;
        Ok(Self { image, request })
    }
}

/// Classes of an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct SegmentsJson {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of the features.
    fingerprint: String,
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
    /// One entry for each class of the segmenter, also for those without pixels.
    classes: Vec<SegmentJson>,
}

/// The pixels of a class.
#[derive(Serialize, ToSchema)]
struct SegmentJson {
    /// The class, 0 to 254.
    #[schema(example = 1)]
    class: u8,
    /// Share of the pixels that the model saw, 0 to 1.
    #[schema(example = 0.23)]
    share: f64,
    /// Its mask; null for a class without pixels.
    #[schema(required)]
    mask: Option<MaskJson>,
}

impl SegmentsJson {
    pub(crate) fn new(model: &Extractor, found: &ImageSegments) -> Self {
        let segments = found.segments.iter();
        Self {
            model: model.name().to_owned(),
            fingerprint: model.engine().fingerprint().to_owned(),
            width: found.placement.image.width,
            height: found.placement.image.height,
            grid: [found.grid.height, found.grid.width],
            size: found.size,
            classes: segments
                .map(|segment| SegmentJson {
                    class: segment.class,
                    share: segment.share,
                    mask: segment
                        .mask
                        .as_ref()
                        .map(|mask| MaskJson::new(mask.extent, &mask.rle, &mask.polygons)),
                })
                .collect(),
        }
    }
}

/// Segment an image.
///
/// Finds the class of each pixel of the photograph with a trained segmenter. The image is prepared
/// with the options of the segmenter.
#[utoipa::path(
    post,
    path = "/v1/segment",
    tag = "features",
    params(ModelParams, SegmentParams, DecodeParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "`image/png`: the class of each pixel, or the classes over the image. \
                `application/x-npy`: logits, f32 `[classes, height, width]`, at the size of the \
                photograph; 0 where the model saw nothing.",
            content(
                (File = "image/png"),
                (SegmentsJson = "application/json"),
                (File = "application/x-npy"),
            ),
        ),
        SearchProblems,
    )
)]
pub(crate) async fn segment_image(
    State(service): State<Service>,
    SegmentRequest { image, request }: SegmentRequest,
) -> Result<Response> {
    let params = request.options;
    check_overlay(params.overlay)?;
    let missing = "required: the name of a segmenter; GET /v1/segmenters lists them";
    let name = params
        .segmenter
        .ok_or_else(|| Error::option("segmenter", missing))?;
    let picture = match params.output {
        SegmentOutput::Mask => SegmentPicture::Mask,
        SegmentOutput::Overlay => SegmentPicture::Overlay(params.overlay),
    };
    let is_picture = request.representation == Representation::Png;
    let forms = SegmentForms {
        descriptions: request.representation == Representation::Json,
        labels: false,
        npy: request.representation == Representation::Npy,
        picture: is_picture.then_some(picture),
    };
    let decoding = request.image.decode;
    let segmented = service
        .segmenters()?
        .segment(&request.model, &name, image, decoding, forms)
        .await?;
    let (model, mut found) = segmented;
    let file = found.value.npy.take().or(found.value.png.take());
    answer_file(
        request.representation,
        file,
        || SegmentsJson::new(&model, &found.value),
        &[found.value.size],
        &found.stages,
    )
}
