//! What the endpoints of maps share: their representations, and reading and answering in them.

use axum::response::Response;
use bytes::Bytes;
use ndarray::{ArrayView, Dimension, RemoveAxis, ShapeError};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    features::npy,
    http::{
        api::features::embed::different_grids,
        request::{admission::Admission, body::ImageRequest},
        response::negotiate::{Representation, answer, multipart_answer, negotiate},
    },
    service::{ImageOptions, MapFormat, Stages},
};

const OFFERS: [Representation; 4] = [
    Representation::Png,
    Representation::Json,
    Representation::Npy,
    Representation::Multipart,
];

/// A request for maps, its options read.
pub(crate) struct MapRequest<T> {
    pub(crate) images: Vec<Bytes>,
    pub(crate) image: ImageOptions,
    pub(crate) options: T,
    pub(crate) format: MapFormat,
    pub(crate) representation: Representation,
    /// The request's place, until the answer is ready.
    pub(crate) admission: Admission,
}

impl<T: DeserializeOwned> MapRequest<T> {
    /// Negotiates the representation and takes all options.
    pub(crate) fn read(request: ImageRequest) -> Result<Self> {
        let ImageRequest {
            images,
            mut options,
            headers,
            admission,
        } = request;
        let representation = negotiate(&headers, &OFFERS)?;
        let image = options.take_image()?;
        let own = options.take()?;
        let style = options.take()?;
        options.finish()?;
        let format = match representation {
            Representation::Png => MapFormat::SinglePng(style),
            Representation::Multipart => MapFormat::PngPerImage(style),
            Representation::Json | Representation::Npy | Representation::Floats => {
                MapFormat::Numbers
            }
        };
        Ok(Self {
            images,
            image,
            options: own,
            format,
            representation,
            admission,
        })
    }
}

/// The answer in the representation that was negotiated: the `pictures`, or one of the two forms of
/// numbers.
pub(crate) fn answer_maps<'a, J: Serialize, D: Dimension<Larger: RemoveAxis>>(
    representation: Representation,
    pictures: Vec<Vec<u8>>,
    json: impl FnOnce() -> J,
    arrays: impl FnOnce() -> Result<Vec<ArrayView<'a, f32, D>>, ShapeError>,
    stages: &Stages,
) -> Result<Response> {
    let body = match representation {
        Representation::Multipart => {
            return Ok(multipart_answer(
                &pictures,
                Representation::Png.media_type(),
                stages,
            ));
        }
        Representation::Png => pictures
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("nothing was drawn"))?,
        Representation::Json => {
            serde_json::to_vec(&json()).map_err(|error| Error::internal(error.to_string()))?
        }
        Representation::Npy | Representation::Floats => {
            let arrays = arrays().map_err(|error| Error::internal(error.to_string()))?;
            match arrays.as_slice() {
                [one] => npy::encode(one)?,
                several => npy::encode(
                    &ndarray::stack(ndarray::Axis(0), several).map_err(|_| different_grids())?,
                )?,
            }
        }
    };
    Ok(answer(representation, body, stages))
}
