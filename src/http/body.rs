//! The three forms in which images come: raw bytes, multipart, JSON.

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request},
    http::{HeaderMap, header},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mediatype::MediaType;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

use super::{AppState, HttpConfig, admission::Admission, options::Options};
use crate::error::{Error, Kind, Result};

const TAKEN: &str =
    "send an image (Content-Type: image/* or application/octet-stream), multipart/form-data, or application/json";

/// The images of a request and its options, wherever they stood.
pub(super) struct ImageRequest {
    pub(super) images: Vec<Bytes>,
    pub(super) options: Options,
    pub(super) headers: HeaderMap,
    /// The request's place; it is free again when this is dropped.
    pub(super) admission: Admission,
}

impl FromRequest<AppState> for ImageRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let (mut parts, body) = request.into_parts();
        let admission =
            <Admission as axum::extract::FromRequestParts<_>>::from_request_parts(&mut parts, state).await?;
        let mut options = Options::default();
        options.add_query(parts.uri.query().unwrap_or_default())?;
        let headers = parts.headers.clone();
        let config = &state.config;
        check_content_length(&headers, config)?;
        let form = BodyForm::of(&headers)?;
        let body = Body::new(Limited::new(body, config.max_body_bytes));
        let mut images = Images { images: Vec::new(), most: config.max_images };
        let read = async move {
            match form {
                BodyForm::Raw => images.add(read_all(body, config).await?)?,
                BodyForm::Multipart => {
                    let request = Request::from_parts(parts, body);
                    read_multipart(request, state, &mut images, &mut options).await?;
                }
                BodyForm::Json => {
                    let body = read_all(body, config).await?;
                    // Megabytes of base64 would hold up the requests of others on this thread.
                    let read = move || read_json(&body, &mut images, &mut options).map(|()| (images, options));
                    let read = tokio::task::spawn_blocking(read).await;
                    return read.map_err(|error| Error::internal(format!("reading JSON: {error}")))?;
                }
            }
            Ok((images, options))
        };
        let (images, options) = tokio::time::timeout(config.request_timeout, read).await.map_err(|_| {
            let seconds = config.request_timeout.as_secs();
            Error::new(Kind::SlowRequest, format!("the body did not arrive within {seconds} s")).with_limit(
                "request_timeout",
                seconds,
                "--request-timeout",
            )
        })??;
        if images.images.is_empty() {
            return Err(Error::new(Kind::Malformed, format!("the request holds no image; {TAKEN}")));
        }
        Ok(Self { images: images.images, options, headers, admission })
    }
}

enum BodyForm {
    Raw,
    Multipart,
    Json,
}

impl BodyForm {
    fn of(headers: &HeaderMap) -> Result<Self> {
        let unsupported = |detail: String| Error::new(Kind::UnsupportedMediaType, format!("{detail}; {TAKEN}"));
        let value =
            headers.get(header::CONTENT_TYPE).ok_or_else(|| unsupported("there is no Content-Type".to_owned()))?;
        let text = value.to_str().unwrap_or_default();
        let media =
            MediaType::parse(text).map_err(|_| unsupported(format!("the Content-Type {value:?} is not valid")))?;
        // Media types do not mind case.
        match (media.ty.as_str().to_lowercase().as_str(), media.subty.as_str().to_lowercase().as_str()) {
            ("image", _) | ("application", "octet-stream") => Ok(Self::Raw),
            ("multipart", "form-data") => Ok(Self::Multipart),
            ("application", "json") => Ok(Self::Json),
            _ => Err(unsupported(format!("the Content-Type {text} is not taken here"))),
        }
    }
}

struct Images {
    images: Vec<Bytes>,
    most: usize,
}

impl Images {
    fn add(&mut self, image: Bytes) -> Result<()> {
        if self.images.len() == self.most {
            let detail = format!("the request holds more than {} images; send them in several requests", self.most);
            return Err(Error::new(Kind::TooLarge, detail).with_limit("max_images", self.most as u64, "--max-images"));
        }
        self.images.push(image);
        Ok(())
    }
}

fn body_too_large(config: &HttpConfig) -> Error {
    let most = config.max_body_bytes as u64;
    Error::new(Kind::TooLarge, format!("the body is larger than the limit of {most} bytes")).with_limit(
        "max_body_bytes",
        most,
        "--max-body-bytes",
    )
}

/// Refuses a body that says it is too large, before a byte of it is read.
fn check_content_length(headers: &HeaderMap, config: &HttpConfig) -> Result<()> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > config.max_body_bytes as u64) {
        Err(body_too_large(config))
    } else {
        Ok(())
    }
}

/// What went wrong while the body was read, found among the causes of `error`.
fn body_error(error: &(dyn std::error::Error + 'static), config: &HttpConfig) -> Error {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            return body_too_large(config);
        }
        cause = inner.source();
    }
    Error::new(Kind::Malformed, format!("the body cannot be read: {error}"))
}

async fn read_all(body: Body, config: &HttpConfig) -> Result<Bytes> {
    Ok(body.collect().await.map_err(|error| body_error(&error, config))?.to_bytes())
}

async fn read_multipart(request: Request, state: &AppState, images: &mut Images, options: &mut Options) -> Result<()> {
    let config = &state.config;
    let mut parts = Multipart::from_request(request, state)
        .await
        .map_err(|error| Error::new(Kind::Malformed, format!("the multipart body cannot be read: {error}")))?;
    while let Some(part) = parts.next_field().await.map_err(|error| body_error(&error, config))? {
        let name = part.name().unwrap_or_default().to_owned();
        let is_image = part.file_name().is_some()
            || part.content_type().is_some_and(|kind| kind.starts_with("image/"))
            || matches!(name.as_str(), "image" | "images" | "file" | "files");
        let content = part.bytes().await.map_err(|error| body_error(&error, config))?;
        if is_image {
            images.add(content)?;
        } else {
            let text = String::from_utf8(content.into())
                .map_err(|_| Error::option(&name, "not UTF-8; a file needs a file name in its part"))?;
            options.add(name, Value::String(text))?;
        }
    }
    Ok(())
}

/// Reads a JSON object member by member: the base64 text is decoded straight from the body, a limit ends the reading at
/// once, and nothing but images and plain option values is ever built.
fn read_json(body: &[u8], images: &mut Images, options: &mut Options) -> Result<()> {
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = deserializer
        .deserialize_map(Members { images, options, failure: &mut failure })
        .and_then(|()| deserializer.end());
    match (failure, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(Error::new(Kind::Malformed, format!("the JSON cannot be read: {error}"))),
        (None, Ok(())) => Ok(()),
    }
}

/// Takes the members of the object; what is wrong with one is left in `failure`, since serde knows only its own errors.
struct Members<'a> {
    images: &'a mut Images,
    options: &'a mut Options,
    failure: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with `image` or `images`")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(Text(name)) = members.next_key::<Text<'de>>()? {
            let taken = match name.as_ref() {
                "image" => {
                    let value: &RawValue = members.next_value()?;
                    one_image(value, "image", self.images, "a base64 string or data: URI")
                }
                "images" => {
                    members.next_value_seed(ImageList { images: &mut *self.images, failure: &mut *self.failure })?;
                    Ok(())
                }
                _ => {
                    let value: &RawValue = members.next_value()?;
                    option_value(value, &name).and_then(|value| self.options.add(name.into_owned(), value))
                }
            };
            if let Err(error) = taken {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("a member is not as it should be"));
            }
        }
        Ok(())
    }
}

fn one_image(value: &RawValue, name: &str, images: &mut Images, expected: &str) -> Result<()> {
    let text: Text<'_> = serde_json::from_str(value.get())
        .map_err(|_| Error::new(Kind::Malformed, format!("`{name}` must be {expected}")))?;
    images.add(from_base64(&text.0, name)?)
}

/// Options are plain values; a list or object is not even read.
fn option_value(value: &RawValue, name: &str) -> Result<Value> {
    let wrong = || Error::option(name, "must be a text, a number, true or false");
    if value.get().starts_with(['[', '{']) || value.get().len() > 1000 {
        return Err(wrong());
    }
    serde_json::from_str(value.get()).map_err(|_| wrong())
}

/// `images`: each is decoded and counted as it is read.
struct ImageList<'a> {
    images: &'a mut Images,
    failure: &'a mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for ImageList<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ImageList<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of base64 strings or data: URIs in `images`")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        let mut index = 0;
        while let Some(value) = items.next_element::<&RawValue>()? {
            if let Err(error) =
                one_image(value, &format!("images[{index}]"), self.images, "a base64 string or data: URI")
            {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("an image is not as it should be"));
            }
            index += 1;
        }
        Ok(())
    }
}

/// A string of a JSON text, borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn from_base64(text: &str, name: &str) -> Result<Bytes> {
    let malformed = |what: String| Error::new(Kind::Malformed, format!("`{name}`: {what}"));
    if text.starts_with("http://") || text.starts_with("https://") {
        return Err(malformed("addresses are not fetched; send the image itself, base64-encoded".to_owned()));
    }
    let encoded = match text.strip_prefix("data:") {
        Some(uri) => match uri.split_once(',') {
            Some((kind, data)) if kind.ends_with(";base64") => data,
            _ => return Err(malformed("the data: URI is not base64 (data:image/png;base64,…)".to_owned())),
        },
        None => text,
    };
    let without_breaks: Cow<'_, str> = if encoded.bytes().any(|byte| byte.is_ascii_whitespace()) {
        encoded.split_ascii_whitespace().collect::<String>().into()
    } else {
        encoded.into()
    };
    let decoded =
        BASE64.decode(without_breaks.as_bytes()).map_err(|error| malformed(format!("not base64: {error}")))?;
    Ok(decoded.into())
}
