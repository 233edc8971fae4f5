//! Bodies: a raw image, a multipart form, or JSON.
//!
//! Many clients send an image with a wrong `Content-Type` or without one. A body of any type, and a
//! part of any type, is therefore looked at, and accepted if it begins as an image does.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Multipart, Request, multipart::MultipartError},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mediatype::MediaType;
use serde_json::Value;

use crate::{
    error::{Error, Kind, ResultExt, shortened},
    http::{
        AppState, HttpConfig, Reason, Rejection, Result,
        request::{
            admission::Admission,
            contents::{
                ACCEPTED_BODIES, Batch, BodyKind, Contents, Images, InputImages, MaskedImages,
                ParsedBody, QueryInputs,
            },
            file_name::file_name,
            json::{read_json, read_listing, without_bom},
            options::{Options, check_text_length},
        },
    },
    vision::{HEAD_LENGTH, Identified, begins_as_image, identify},
};

/// A request with images.
pub(crate) type ImageRequest = BodyRequest<Images>;
/// A request with images or a vector.
pub(crate) type QueryRequest = BodyRequest<QueryInputs>;
/// A request with images and their masks.
pub(crate) type MaskedImageRequest = BodyRequest<MaskedImages>;
/// A request with several items.
pub(crate) type BatchRequest = BodyRequest<Batch>;
/// A request in the shape of OpenAI's API.
pub(crate) type InputRequest = BodyRequest<InputImages>;

/// An admitted request whose body was read.
pub(crate) struct BodyRequest<C> {
    pub(crate) contents: C,
    /// Options, from the query and the body.
    pub(crate) options: Options,
    pub(crate) headers: HeaderMap,
    /// Permit, held until the response is ready.
    pub(crate) admission: Admission,
}

impl<C: Contents> FromRequest<AppState> for BodyRequest<C> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        let config = &state.config;
        let admission = Admission::from_request_parts(&mut parts, state).await?;
        check_content_length(&parts.headers, config)?;
        let headers = parts.headers.clone();
        let read = read(Request::from_parts(parts, body), config, C::KIND);
        let (body, options) = in_time(config, read).await?;
        Ok(Self {
            contents: C::from_body(body)?,
            options,
            headers,
            admission,
        })
    }
}

/// A request with options only, in JSON and in the query. It gives up its permit once it is read.
pub(crate) struct OptionsRequest(pub(crate) Options);

impl FromRequest<AppState> for OptionsRequest {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let request = BodyRequest::<()>::from_request(request, state).await?;
        Ok(Self(request.options))
    }
}

/// Fails with [`Reason::SlowRequest`] if reading a body takes longer than a request may.
pub(crate) async fn in_time<T>(
    config: &HttpConfig,
    read: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = config.request_timeout;
    // Slightly less than the limit of the whole request, so that a slow client gets this error and
    // not the general one.
    tokio::time::timeout(limit - limit / 50, read)
        .await
        .map_err(|_| {
            let seconds = limit.as_secs();
            let detail = format!("the body did not arrive within {seconds} s");
            let rejection = Rejection::new(Reason::SlowRequest, detail);
            rejection.with_limit("request_timeout", seconds, "--request-timeout")
        })?
}

/// Reads the query and the body of a request.
pub(crate) async fn read(
    request: Request,
    config: &HttpConfig,
    kind: BodyKind,
) -> Result<(ParsedBody, Options)> {
    let mut options = Options::default();
    options.add_query(request.uri().query().unwrap_or_default())?;
    let form = body_form(request.headers(), kind)?;
    let request = request.map(|body| Body::new(Limited::new(body, config.max_body_bytes)));
    let mut parsed = ParsedBody::new(kind, config.max_images);
    match form {
        BodyForm::Raw => parsed.add_image(read_all(request.into_body(), config).await?, None)?,
        BodyForm::Unknown(problem) => {
            let body = read_all(request.into_body(), config).await?;
            if !begins_as_image(&body) {
                return Err(unsupported(&problem));
            }
            parsed.add_image(body, None)?;
        }
        BodyForm::Multipart => {
            let (request, head) = with_head(request, config).await?;
            if is_image_instead(&head, b"--") {
                let body = read_all(request.into_body(), config).await?;
                add_body(&mut parsed, body, "a form")?;
            } else {
                read_multipart(request, config, &mut parsed, &mut options).await?;
            }
        }
        BodyForm::Json => {
            let body = read_all(request.into_body(), config).await?;
            if is_image_instead(&body, b"{") {
                add_body(&mut parsed, body, "JSON")?;
                return Ok((parsed, options));
            }
            // Decoding megabytes of base64 here would delay other requests on this thread.
            return tokio::task::spawn_blocking(move || {
                read_json(&body, &mut parsed, &mut options)?;
                Ok((parsed, options))
            })
            .await
            .internal("reading JSON")?;
        }
    }
    Ok((parsed, options))
}

/// Adds a body that is an image, although its type says that it is `form`.
fn add_body(parsed: &mut ParsedBody, body: Bytes, form: &str) -> Result<()> {
    if matches!(parsed.kind, BodyKind::Images | BodyKind::ImagesOrVector) {
        return Ok(parsed.add_image(body, None)?);
    }
    let kind = match identify(&body) {
        Identified::Readable(format) => format.name,
        _ => "image",
    };
    let detail = format!("the body is a file ({kind}) and not {form}, which this operation takes");
    Err(Error::malformed(detail).into())
}

/// Returns whether a body is an image, and not the form that its type states. That begins with
/// `start`, after white space.
fn is_image_instead(head: &[u8], start: &[u8]) -> bool {
    !without_bom(head).trim_ascii_start().starts_with(start) && begins_as_image(head)
}

/// Returns a request with the first bytes of its body, as many as tell an image.
async fn with_head(request: Request, config: &HttpConfig) -> Result<(Request, Bytes)> {
    let (parts, mut body) = request.into_parts();
    let mut head = BytesMut::new();
    while head.len() < HEAD_LENGTH {
        let Some(frame) = body.frame().await else {
            let head = head.freeze();
            return Ok((Request::from_parts(parts, head.clone().into()), head));
        };
        let frame = frame.map_err(|error| body_error(&error, config))?;
        head.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    let head = head.freeze();
    let begin = stream::iter([Ok(head.clone())]);
    let body = Body::from_stream(begin.chain(body.into_data_stream()));
    Ok((Request::from_parts(parts, body), head))
}

enum BodyForm {
    Raw,
    Multipart,
    Json,
    /// No type of the others, for this reason. The body may still be an image.
    Unknown(String),
}

/// Returns the form of a body, if a body of this kind may have it.
fn body_form(headers: &HeaderMap, kind: BodyKind) -> Result<BodyForm> {
    let detail = match (kind, content_type_form(headers)) {
        (_, BodyForm::Json) => return Ok(BodyForm::Json),
        (BodyKind::Options | BodyKind::Input, _) => {
            "this operation accepts only a JSON object; send Content-Type: application/json"
        }
        (BodyKind::Items, BodyForm::Raw) => {
            "a raw body cannot hold several items; send multipart/form-data or application/json"
        }
        (BodyKind::MaskedImages, BodyForm::Raw) => {
            "a raw body cannot hold an image and its mask; send multipart/form-data with files \
             named `image` and `mask`, or application/json"
        }
        (BodyKind::Items | BodyKind::MaskedImages, BodyForm::Unknown(problem)) => {
            return Err(unsupported(&problem));
        }
        (_, form) => return Ok(form),
    };
    Err(Rejection::new(Reason::UnsupportedMediaType, detail))
}

fn content_type_form(headers: &HeaderMap) -> BodyForm {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return BodyForm::Unknown("the Content-Type header is missing".to_owned());
    };
    let text = value.to_str().unwrap_or_default();
    let Ok(media) = MediaType::parse(text) else {
        let value = format!("{value:?}");
        let value = shortened(&value);
        return BodyForm::Unknown(format!("the Content-Type {value} is invalid"));
    };
    // Media types are case-insensitive.
    let kind = media.ty.as_str().to_lowercase();
    let subtype = media.subty.as_str().to_lowercase();
    match (kind.as_str(), subtype.as_str()) {
        ("image", _) | ("application", "octet-stream") => BodyForm::Raw,
        ("multipart", "form-data") => BodyForm::Multipart,
        ("application", "json") => BodyForm::Json,
        _ => {
            let text = shortened(text);
            BodyForm::Unknown(format!("the Content-Type {text} is not supported"))
        }
    }
}

fn unsupported(problem: &str) -> Rejection {
    let detail = format!("{problem}; {ACCEPTED_BODIES}");
    Rejection::new(Reason::UnsupportedMediaType, detail)
}

fn body_too_large(config: &HttpConfig) -> Error {
    let max = config.max_body_bytes as u64;
    let detail = format!("the body is larger than the limit of {max} bytes");
    Error::new(Kind::TooLarge, detail).with_limit("max_body_bytes", max, "--max-body-bytes")
}

/// Rejects a body by its `Content-Length`, before any of it is read.
fn check_content_length(headers: &HeaderMap, config: &HttpConfig) -> Result<()> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > config.max_body_bytes as u64) {
        return Err(body_too_large(config).into());
    }
    Ok(())
}

/// Finds out from the causes of `error` whether a body was too large or unreadable.
fn body_error(error: &(dyn std::error::Error + 'static), config: &HttpConfig) -> Error {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            return body_too_large(config);
        }
        cause = inner.source();
    }
    Error::malformed(format!("the body cannot be read: {error}"))
}

async fn read_all(body: Body, config: &HttpConfig) -> Result<Bytes> {
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(body_error(&error, config).into()),
    }
}

async fn read_multipart(
    request: Request,
    config: &HttpConfig,
    body: &mut ParsedBody,
    options: &mut Options,
) -> Result<()> {
    let parts = Multipart::from_request(request, &()).await;
    let mut parts = parts
        .map_err(|error| Error::malformed(format!("the multipart body cannot be read: {error}")))?;
    let failed = |error: MultipartError| body_error(&error, config);
    let mut listing = None;
    while let Some(part) = parts.next_field().await.map_err(failed)? {
        let name = part.name().unwrap_or_default().to_owned();
        let is_listing = body.kind == BodyKind::Items && name == "items";
        let file_name = file_name(part.headers());
        let kind = part.content_type().unwrap_or_default();
        let is_file = file_name.is_some()
            || kind.starts_with("image/")
            || matches!(name.as_str(), "image" | "images" | "file" | "files")
            || (body.kind == BodyKind::MaskedImages && is_mask(&name));
        let content = part.bytes().await.map_err(failed)?;
        // Options are UTF-8: the text "BMW" begins as a BMP file does.
        let is_file =
            is_file || (std::str::from_utf8(&content).is_err() && begins_as_image(&content));
        if is_file && body.kind == BodyKind::MaskedImages && is_mask(&name) {
            body.add_mask(content)?;
            continue;
        }
        if is_file && !is_listing {
            body.add_image(content, file_name.filter(|name| !name.is_empty()))?;
            continue;
        }
        let text = str::from_utf8(without_bom(&content))
            .map_err(|_| Error::option(&name, "not UTF-8; the part of a file needs a file name"))?;
        if !is_listing {
            check_text_length(&name, text)?;
            options.add(name, Value::String(text.to_owned()))?;
        } else if listing.replace(text.to_owned()).is_some() {
            return Err(Error::option("items", "given twice").into());
        }
    }
    // A listing without files is ignored: the request contains no item then.
    if let Some(listing) = listing
        && body.image_count() > 0
    {
        body.set_listing(read_listing(&listing, body.image_count())?);
    }
    Ok(())
}

/// Returns whether a part of a form with images and masks is a mask.
fn is_mask(name: &str) -> bool {
    matches!(name, "mask" | "masks" | "mask[]" | "masks[]")
}
