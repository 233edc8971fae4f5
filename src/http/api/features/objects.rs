//! `POST /v1/objects`.

use axum::{
    extract::{FromRequest, Request},
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::maps::{PICTURE_OFFERS, PictureRequest, answer_file, check_overlay};
use crate::{
    features::objects::{Method, Refine},
    http::{
        AppState, Rejection, Result,
        api::{
            mask::MaskJson,
            schema::{File, ImageParams, ImagesJson, ObjectOutput},
        },
        openapi::FeatureProblems,
        request::model::ModelParams,
        response::negotiate::Representation,
    },
    service::{Extractor, ImageObjects, ObjectForms, ObjectOptions, ObjectPicture},
};

/// Options of objects.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ObjectParams {
    /// Way to find objects. `tokencut` cuts the graph of alike patches where it falls apart, and
    /// returns the parts with the most attention. `attention` returns the patches that the CLS
    /// token attends to most, which are rough.
    #[param(inline)]
    method: Method,
    /// Maximum number of objects. Those with the largest scores are returned.
    #[param(minimum = 1, maximum = 10, default = 10)]
    max_objects: usize,
    /// For `tokencut`, the cosine above which patches are alike, after the mean token of the image
    /// is subtracted (default 0). For `attention`, the share of the attention to keep (default
    /// 0.6).
    #[param(minimum = -1.0, maximum = 1.0, example = 0.6)]
    threshold: Option<f32>,
    /// Edges of objects. `guided`: those of the photograph, by a guided filter. `none`: those of
    /// patches.
    #[param(inline)]
    refine: Refine,
    /// Picture. `overlay`: the image as the model sees it, with the objects in colors. `mask`: an
    /// indexed PNG as large as the photograph, in which the first object is 1, and the background
    /// 0.
    #[param(inline)]
    output: ObjectOutput,
    /// Opacity of the colors of `output=overlay`.
    #[param(minimum = 0.0, maximum = 1.0, default = 0.8)]
    overlay: f32,
}

impl Default for ObjectParams {
    fn default() -> Self {
        let ObjectOptions {
            method,
            max_objects,
            threshold,
            refine,
        } = ObjectOptions::default();
        Self {
            method,
            max_objects,
            threshold,
            refine,
            output: ObjectOutput::default(),
            overlay: ObjectPicture::OPACITY,
        }
    }
}

/// A request with one image.
pub(crate) struct ObjectRequest {
    image: Bytes,
    request: PictureRequest<ObjectParams>,
}

impl FromRequest<AppState> for ObjectRequest {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let mut request = PictureRequest::read(request, state, &PICTURE_OFFERS).await?;
        let [image] = request.take_images("the search for objects")?;
        Ok(Self { image, request })
    }
}

/// Objects of an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct ObjectsJson<'a> {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Fingerprint of the features.
    fingerprint: &'a str,
    /// Width of the upright image, in pixels.
    #[schema(example = 640)]
    width: usize,
    /// Height of the upright image, in pixels.
    #[schema(example = 480)]
    height: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `size` to which the image was resized, in pixels. Smaller than the default if that would
    /// give too many patches.
    #[schema(example = 518)]
    size: usize,
    /// The object with the largest score first. Empty if nothing stands out.
    objects: Vec<ObjectJson>,
}

/// An object.
#[derive(Serialize, ToSchema)]
pub(crate) struct ObjectJson {
    /// Share of the attention of CLS, 0 to 1.
    #[schema(example = 0.41)]
    score: f32,
    #[serde(flatten)]
    mask: MaskJson,
}

impl<'a> ObjectsJson<'a> {
    pub(crate) fn new(model: &'a Extractor, found: &ImageObjects, size: usize) -> Self {
        Self {
            model: model.name(),
            fingerprint: model.engine().fingerprint(),
            width: found.placement.image.width,
            height: found.placement.image.height,
            grid: [found.grid.height, found.grid.width],
            size,
            objects: found
                .objects
                .iter()
                .map(|object| ObjectJson {
                    score: object.score,
                    mask: MaskJson::new(object.extent, &object.rle, &object.polygons),
                })
                .collect(),
        }
    }
}

/// Find objects.
///
/// Finds the objects of an image without labels: what its patches fall into, and what the model
/// attends to. Works best for a few things on a plain background; a page of text or a lawn has no
/// object. Masks have the size of the photograph.
#[utoipa::path(
    post,
    path = "/v1/objects",
    tag = "features",
    params(ModelParams, ObjectParams, ImageParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "`image/png`: the objects over the image, or their mask. \
                `application/x-npy`: masks, u8 `[objects, height, width]`, 1 within the object.",
            content(
                (File = "image/png"),
                (ObjectsJson<'_> = "application/json"),
                (File = "application/x-npy"),
            ),
        ),
        FeatureProblems,
    )
)]
pub(crate) async fn find_objects(
    ObjectRequest { image, request }: ObjectRequest,
) -> Result<Response> {
    let params = request.options;
    let options = ObjectOptions {
        method: params.method,
        max_objects: params.max_objects,
        threshold: params.threshold,
        refine: params.refine,
    };
    check_overlay(params.overlay)?;
    let is_picture = request.representation == Representation::Png;
    let picture = match params.output {
        ObjectOutput::Overlay => ObjectPicture::Overlay(params.overlay),
        ObjectOutput::Mask => ObjectPicture::Mask,
    };
    let forms = ObjectForms {
        descriptions: request.representation == Representation::Json,
        npy: request.representation == Representation::Npy,
        picture: is_picture.then_some(picture),
    };
    let model = request.model.of_new();
    let mut found = model.objects(image, &request.image, options, forms).await?;
    let size = model.map_sizes(&request.image).of(found.value.grid);
    let file = found.value.npy.take().or(found.value.png.take());
    answer_file(
        request.representation,
        file,
        || ObjectsJson::new(&model, &found.value, size),
        &[size],
        &found.stages,
    )
}
