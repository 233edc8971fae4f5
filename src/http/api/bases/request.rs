//! Requests that fit a basis: with images, or with the name of a gallery.

use axum::{
    body::HttpBody,
    extract::{FromRequest, FromRequestParts, Request},
};
use bytes::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    error::Error,
    gallery::GalleryName,
    http::{
        AppState, Rejection, Result,
        request::{admission::Admission, body::ImageRequest, options::Options},
    },
    service::BasisImages,
};

/// Default number of thumbnails that are taken of a gallery.
const DEFAULT_SAMPLE: usize = 100;
/// Maximum number of thumbnails. More would take longer than a request may.
const MAX_SAMPLE: usize = 1000;

/// Options that name images of a gallery.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SampleParams {
    /// Name of a gallery whose thumbnails are used, in a request without a body. Thumbnails are
    /// small (`size` is 224 by default), so the basis is less precise than one that is fitted on
    /// the images themselves.
    #[param(value_type = String)]
    gallery: Option<GalleryName>,
    /// Number of items whose thumbnails are used. Repeated requests use the same items, as long as
    /// these exist.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    sample: Option<usize>,
}

/// A request with images, or one without a body whose query names a gallery.
pub(crate) struct BasisRequest {
    pub(crate) files: Vec<Bytes>,
    pub(crate) options: Options,
    /// Permit, held until the response is ready.
    _admission: Admission,
}

impl FromRequest<AppState> for BasisRequest {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if !query
            .split('&')
            .any(|option| option.starts_with("gallery="))
        {
            let request = ImageRequest::from_request(request, state).await?;
            return Ok(Self {
                files: request.contents.0,
                options: request.options,
                _admission: request.admission,
            });
        }
        let (mut parts, body) = request.into_parts();
        let admission = Admission::from_request_parts(&mut parts, state).await?;
        if !body.is_end_stream() {
            return Err(gallery_and_images().into());
        }
        let mut options = Options::default();
        options.add_query(&query)?;
        Ok(Self {
            files: Vec::new(),
            options,
            _admission: admission,
        })
    }
}

/// Takes the remaining options, and returns the files or the sample of a gallery.
pub(crate) fn take_images(files: Vec<Bytes>, mut options: Options) -> Result<BasisImages, Error> {
    let SampleParams { gallery, sample } = options.take()?;
    options.reject_unknown()?;
    match (gallery, sample) {
        (Some(_), _) if !files.is_empty() => Err(gallery_and_images()),
        (None, Some(_)) => Err(Error::option(
            "sample",
            "requires `gallery`, the gallery to sample",
        )),
        (None, None) => Ok(BasisImages::Files(files)),
        (Some(name), sample) => {
            let sample = sample.unwrap_or(DEFAULT_SAMPLE);
            if sample == 0 || sample > MAX_SAMPLE {
                let range = format_args!("1 to {MAX_SAMPLE}");
                return Err(Error::out_of_range("sample", sample, range));
            }
            Ok(BasisImages::Gallery { name, sample })
        }
    }
}

fn gallery_and_images() -> Error {
    Error::option(
        "gallery",
        "cannot be combined with images; send a body, or name a gallery in the query without one",
    )
}
