//! Reading requests for maps, and answering them.

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderName, HeaderValue},
    response::Response,
};
use bytes::Bytes;
use ndarray::{ArrayView, Axis, Dimension, RemoveAxis, ShapeError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::IntoParams;

use crate::{
    error::{Error, ResultExt},
    features::{
        npy,
        render::{Output, Style, Upscale},
    },
    http::{
        AppState, Rejection, Result,
        api::schema::ImageParams,
        request::{admission::Admission, body::ImageRequest},
        response::{
            answer::{answer, json, multipart},
            negotiate::{Representation, different_grids, negotiate},
        },
    },
    names::plural,
    service::{ImageOptions, MapFormat, ModelChoice, Stages},
};

/// Response header with the `size` of each image of a map.
const IMAGE_SIZE: HeaderName = HeaderName::from_static("image-size");

const OFFERS: [Representation; 4] = [
    Representation::Png,
    Representation::Json,
    Representation::Npy,
    Representation::Multipart,
];

/// Forms of an answer that is a picture, a description or an array.
pub(crate) const PICTURE_OFFERS: [Representation; 3] = [
    Representation::Png,
    Representation::Json,
    Representation::Npy,
];

/// Rejects an opacity out of range, also where nothing is drawn over the image.
pub(crate) fn check_overlay(overlay: f32) -> Result<()> {
    if (0.0..=1.0).contains(&overlay) {
        return Ok(());
    }
    Err(Error::out_of_range("overlay", overlay, "0 to 1").into())
}

/// Options that decide how maps are drawn.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct StyleParams {
    /// Size of the PNG. `input`: as large as the image that the model sees. `patch`: one pixel per
    /// patch.
    #[param(inline)]
    output: Output,
    /// How patches are scaled up to pixels. `nearest` draws squares; the others interpolate between
    /// the centers of patches.
    #[param(inline)]
    upscale: Upscale,
    /// Opacity of the map over the image. At 1 the image is hidden.
    #[param(minimum = 0.0, maximum = 1.0, default = 1.0)]
    overlay: f32,
}

impl Default for StyleParams {
    fn default() -> Self {
        let style = Style::default();
        Self {
            output: style.output,
            upscale: style.upscale,
            overlay: style.overlay,
        }
    }
}

/// A request for maps, with the options `T` in addition to those of images and of drawing.
pub(crate) struct MapRequest<T> {
    pub(crate) images: Vec<Bytes>,
    pub(crate) model: ModelChoice,
    pub(crate) image: ImageOptions,
    pub(crate) options: T,
    pub(crate) format: MapFormat,
    pub(crate) representation: Representation,
    /// Permit, held until the response is ready.
    _admission: Admission,
}

impl<T: DeserializeOwned> FromRequest<AppState> for MapRequest<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let request: PictureRequest<T, StyleParams> =
            PictureRequest::read(request, state, &OFFERS).await?;
        let style = Style {
            output: request.drawing.output,
            upscale: request.drawing.upscale,
            overlay: request.drawing.overlay,
        };
        let format = match request.representation {
            Representation::Png => MapFormat::SinglePng(style),
            Representation::Multipart => MapFormat::PngPerImage(style),
            _ => MapFormat::Numbers,
        };
        Ok(Self {
            images: request.images,
            model: request.model,
            image: request.image,
            options: request.options,
            format,
            representation: request.representation,
            _admission: request._admission,
        })
    }
}

/// A request that is answered with a picture or with numbers: the options `T` in addition to those
/// of images, and the options `D` of drawing.
pub(crate) struct PictureRequest<T, D = NoParams> {
    pub(crate) images: Vec<Bytes>,
    pub(crate) model: ModelChoice,
    pub(crate) image: ImageOptions,
    pub(crate) options: T,
    pub(crate) drawing: D,
    pub(crate) representation: Representation,
    /// Permit, held until the response is ready.
    _admission: Admission,
}

/// No options.
#[derive(Deserialize)]
pub(crate) struct NoParams {}

impl<T, D> PictureRequest<T, D> {
    /// Takes the images, as many as `operation` works on.
    pub(crate) fn take_images<const N: usize>(&mut self, operation: &str) -> Result<[Bytes; N]> {
        let images = std::mem::take(&mut self.images);
        let images = <[Bytes; N]>::try_from(images).map_err(|images| {
            let (takes, has) = (plural(N, "image"), images.len());
            Error::malformed(format!(
                "{operation} takes {takes}, and the request has {has}"
            ))
        })?;
        Ok(images)
    }
}

impl<T: DeserializeOwned, D: DeserializeOwned> PictureRequest<T, D> {
    /// Reads a request. `offers` are the representations of the answer, the default first.
    pub(crate) async fn read(
        request: Request,
        state: &AppState,
        offers: &[Representation],
    ) -> Result<Self> {
        Self::read_as::<ImageParams>(request, state, offers).await
    }

    /// Reads a request in which `P` are the options of images.
    pub(crate) async fn read_as<P: DeserializeOwned + Into<ImageOptions>>(
        request: Request,
        state: &AppState,
        offers: &[Representation],
    ) -> Result<Self> {
        let mut request = ImageRequest::from_request(request, state).await?;
        let representation = negotiate(&request.headers, offers)?;
        let model = request.options.choose_model(&state.service)?;
        let image: P = request.options.take()?;
        let options: T = request.options.take()?;
        let drawing: D = request.options.take()?;
        request.options.reject_unknown()?;
        Ok(Self {
            images: request.contents.0,
            model,
            image: image.into(),
            options,
            drawing,
            representation,
            _admission: request.admission,
        })
    }
}

/// Builds the response in the negotiated representation: from the drawn `pngs`, or from one of the
/// two forms of numbers. The header `Image-Size` has the `sizes` to which the images were resized.
pub(crate) fn answer_maps<'a, J: Serialize, D: Dimension<Larger: RemoveAxis>>(
    representation: Representation,
    pngs: Vec<Vec<u8>>,
    as_json: impl FnOnce() -> J,
    as_arrays: impl FnOnce() -> Result<Vec<ArrayView<'a, f32, D>>, ShapeError>,
    sizes: &[usize],
    stages: &Stages,
) -> Result<Response> {
    let body = match representation {
        Representation::Json => return Ok(with_sizes(json(&as_json(), stages)?, sizes)),
        Representation::Multipart => return Ok(with_sizes(multipart(&pngs, stages), sizes)),
        Representation::Png => pngs
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("nothing was drawn"))?,
        Representation::Csv => return Err(Error::internal("a map has no rows").into()),
        Representation::Npy | Representation::Floats => {
            let arrays = as_arrays().internal("shaping a map")?;
            match arrays.as_slice() {
                [one] => npy::encode(one)?,
                several => {
                    let stacked = ndarray::stack(Axis(0), several);
                    npy::encode(&stacked.map_err(|_| different_grids())?)?
                }
            }
        }
    };
    Ok(with_sizes(answer(representation, body, stages), sizes))
}

/// Builds the response of an operation with JSON, and with a file that is either a picture or an
/// array. `sizes` are as in [`answer_maps`].
pub(crate) fn answer_file<J: Serialize>(
    representation: Representation,
    file: Option<Vec<u8>>,
    as_json: impl FnOnce() -> J,
    sizes: &[usize],
    stages: &Stages,
) -> Result<Response> {
    let response = match (representation, file) {
        (Representation::Json, _) => json(&as_json(), stages)?,
        (_, Some(file)) => answer(representation, file, stages),
        (_, None) => return Err(Error::internal("nothing was drawn").into()),
    };
    Ok(with_sizes(response, sizes))
}

/// Adds the header `Image-Size`.
pub(crate) fn with_sizes(mut response: Response, sizes: &[usize]) -> Response {
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    if let Ok(value) = HeaderValue::from_str(&sizes.join(", ")) {
        response.headers_mut().insert(IMAGE_SIZE, value);
    }
    response
}

/// Converts the answer to each image, with its index in the request.
pub(crate) fn indexed<T, J>(images: &[T], item: impl Fn(usize, &T) -> J) -> Vec<J> {
    let images = images.iter().enumerate();
    images.map(|(index, image)| item(index, image)).collect()
}

/// Returns the rows of a map as JSON lists.
pub(crate) fn rows<T: Clone>(map: ndarray::ArrayView2<'_, T>) -> Vec<Vec<T>> {
    map.rows().into_iter().map(|row| row.to_vec()).collect()
}
