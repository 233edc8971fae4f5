//! The three forms in which images come: raw bytes, multipart, JSON. Where a vector will do, JSON
//! may hold one instead.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Multipart, Request},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mediatype::MediaType;
use serde_json::Value;

use crate::{
    error::{Error, Kind, Result},
    http::{
        AppState, HttpConfig,
        request::{
            admission::Admission,
            json::{BodyItem, check_length_of_text, read_json},
            options::Options,
        },
    },
    service::QueryInput,
};

const TAKEN: &str = "send an image (Content-Type: image/* or application/octet-stream), multipart/form-data, or application/json";

/// The images of a request and its options, wherever they stood.
pub(crate) struct ImageRequest {
    pub(crate) images: Vec<Bytes>,
    pub(crate) options: Options,
    pub(crate) headers: HeaderMap,
    /// The request's place; it is free again when this is dropped.
    pub(crate) admission: Admission,
}

impl FromRequest<AppState> for ImageRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let Received {
            contents,
            options,
            headers,
            admission,
        } = receive(request, state, Takes::Images).await?;
        if contents.images.is_empty() {
            return Err(Error::new(
                Kind::Malformed,
                format!("the request holds no image; {TAKEN}"),
            ));
        }
        Ok(Self {
            images: contents.images,
            options,
            headers,
            admission,
        })
    }
}

/// A request about images, or about a vector that was made elsewhere.
pub(crate) struct SubjectRequest {
    /// At least one.
    pub(crate) subjects: Vec<QueryInput>,
    pub(crate) options: Options,
    /// The request's place; it is free again when this is dropped.
    pub(crate) admission: Admission,
}

impl FromRequest<AppState> for SubjectRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let Received {
            contents,
            options,
            admission,
            ..
        } = receive(request, state, Takes::ImagesOrVector).await?;
        Ok(Self {
            subjects: contents.subjects()?,
            options,
            admission,
        })
    }
}

/// A request about several items, each with options of its own.
pub(crate) struct ItemsRequest {
    pub(crate) items: Vec<BodyItem>,
    pub(crate) options: Options,
    /// The request's place; it is free again when this is dropped.
    pub(crate) admission: Admission,
}

impl FromRequest<AppState> for ItemsRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let Received {
            contents,
            options,
            admission,
            ..
        } = receive(request, state, Takes::Items).await?;
        let items = contents.into_items()?;
        if items.is_empty() {
            let detail = "the request holds no item; send files as multipart/form-data, or {\"items\": [..]} as JSON";
            return Err(Error::new(Kind::Malformed, detail));
        }
        Ok(Self {
            items,
            options,
            admission,
        })
    }
}

/// A request in OpenAI's shape: JSON with the images in `input`.
pub(crate) struct InputRequest {
    /// At least one.
    pub(crate) images: Vec<Bytes>,
    pub(crate) options: Options,
    /// The request's place; it is free again when this is dropped.
    pub(crate) admission: Admission,
}

impl FromRequest<AppState> for InputRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let Received {
            contents,
            options,
            admission,
            ..
        } = receive(request, state, Takes::Input).await?;
        if contents.images.is_empty() {
            let detail =
                "there is no image in `input`; send base64 or a data: URI there, or a list of them";
            return Err(Error::new(Kind::Malformed, detail));
        }
        Ok(Self {
            images: contents.images,
            options,
            admission,
        })
    }
}

/// A request that is all options, in JSON and in the query.
pub(crate) struct OptionsRequest(pub(crate) Options);

impl FromRequest<AppState> for OptionsRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        Ok(Self(receive(request, state, Takes::Nothing).await?.options))
    }
}

/// A request that has arrived.
struct Received {
    contents: Contents,
    options: Options,
    headers: HeaderMap,
    admission: Admission,
}

/// Takes a place, then reads the body.
async fn receive(request: Request, state: &AppState, takes: Takes) -> Result<Received> {
    let (mut parts, body) = request.into_parts();
    let config = &state.config;
    let admission = Admission::from_request_parts(&mut parts, state).await?;
    check_content_length(&parts.headers, config)?;
    let headers = parts.headers.clone();
    let read = read(Request::from_parts(parts, body), config, takes);
    let (contents, options) = in_time(config, read).await?;
    Ok(Received {
        contents,
        options,
        headers,
        admission,
    })
}

/// Waits for a body for as long as a request may take.
pub(crate) async fn in_time<T>(
    config: &HttpConfig,
    read: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = config.request_timeout;
    // A little less than the whole request may take, so that a slow client hears that it is one.
    tokio::time::timeout(limit - limit / 50, read)
        .await
        .map_err(|_| {
            let seconds = limit.as_secs();
            Error::new(
                Kind::SlowRequest,
                format!("the body did not arrive within {seconds} s"),
            )
            .with_limit("request_timeout", seconds, "--request-timeout")
        })?
}

/// Reads what a request holds, in its query and in its body.
pub(crate) async fn read(
    request: Request,
    config: &HttpConfig,
    takes: Takes,
) -> Result<(Contents, Options)> {
    let mut options = Options::default();
    options.add_query(request.uri().query().unwrap_or_default())?;
    let form = match BodyForm::of(request.headers()) {
        Ok(BodyForm::Json) => BodyForm::Json,
        _ if matches!(takes, Takes::Nothing | Takes::Input) => {
            let detail = "only a JSON object is taken here; send Content-Type: application/json";
            return Err(Error::new(Kind::UnsupportedMediaType, detail));
        }
        form => form?,
    };
    let request = request.map(|body| Body::new(Limited::new(body, config.max_body_bytes)));
    let mut contents = Contents::new(takes, config.max_images);
    match form {
        BodyForm::Raw if takes == Takes::Items => {
            let detail =
                "several items do not fit a raw body; send multipart/form-data or application/json";
            return Err(Error::new(Kind::UnsupportedMediaType, detail));
        }
        BodyForm::Raw => contents.add_image(read_all(request.into_body(), config).await?, None)?,
        BodyForm::Multipart => read_multipart(request, config, &mut contents, &mut options).await?,
        BodyForm::Json => {
            let body = read_all(request.into_body(), config).await?;
            // Megabytes of base64 would hold up the requests of others on this thread.
            let read =
                move || read_json(&body, &mut contents, &mut options).map(|()| (contents, options));
            let read = tokio::task::spawn_blocking(read).await;
            return read.map_err(|error| Error::internal(format!("reading JSON: {error}")))?;
        }
    }
    Ok((contents, options))
}

enum BodyForm {
    Raw,
    Multipart,
    Json,
}

impl BodyForm {
    fn of(headers: &HeaderMap) -> Result<Self> {
        let unsupported =
            |detail: String| Error::new(Kind::UnsupportedMediaType, format!("{detail}; {TAKEN}"));
        let value = headers
            .get(header::CONTENT_TYPE)
            .ok_or_else(|| unsupported("there is no Content-Type".to_owned()))?;
        let text = value.to_str().unwrap_or_default();
        let media = MediaType::parse(text)
            .map_err(|_| unsupported(format!("the Content-Type {value:?} is not valid")))?;
        // Media types do not mind case.
        match (
            media.ty.as_str().to_lowercase().as_str(),
            media.subty.as_str().to_lowercase().as_str(),
        ) {
            ("image", _) | ("application", "octet-stream") => Ok(Self::Raw),
            ("multipart", "form-data") => Ok(Self::Multipart),
            ("application", "json") => Ok(Self::Json),
            _ => Err(unsupported(format!(
                "the Content-Type {text} is not taken here"
            ))),
        }
    }
}

/// What a body may hold beside options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Images,
    ImagesOrVector,
    Items,
    /// Images, in JSON's `input`.
    Input,
    /// Only options.
    Nothing,
}

/// What a body holds beside options.
pub(crate) struct Contents {
    pub(crate) takes: Takes,
    most: usize,
    images: Vec<Bytes>,
    /// The file name of each image.
    names: Vec<Option<String>>,
    vector: Option<Vec<f32>>,
    items: Vec<BodyItem>,
    /// A JSON list that tells of the images what their form parts cannot.
    listing: Option<String>,
}

impl Contents {
    /// Nothing yet; more than `most` images or items will be refused.
    pub(crate) fn new(takes: Takes, most: usize) -> Self {
        let (images, names, items) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            takes,
            most,
            images,
            names,
            vector: None,
            items,
            listing: None,
        }
    }

    pub(crate) fn add_image(&mut self, image: Bytes, name: Option<String>) -> Result<()> {
        if self.images.len() == self.most {
            return Err(self.too_many("images"));
        }
        self.images.push(image);
        self.names.push(name);
        Ok(())
    }

    /// Adds an item, which is read only if there is room for it; it is told the limit.
    pub(crate) fn add_item(&mut self, read: impl FnOnce(usize) -> BodyItem) -> Result<()> {
        if self.items.len() == self.most {
            return Err(self.too_many("items"));
        }
        self.items.push(read(self.most));
        Ok(())
    }

    pub(crate) fn add_vector(&mut self, vector: Vec<f32>) -> Result<()> {
        match self.vector.replace(vector) {
            None => Ok(()),
            Some(_) => Err(Error::option("vector", "given twice")),
        }
    }

    fn too_many(&self, what: &str) -> Error {
        let detail = format!(
            "the request holds more than {} {what}; send them in several requests",
            self.most
        );
        Error::new(Kind::TooLarge, detail).with_limit(
            "max_images",
            self.most as u64,
            "--max-images",
        )
    }

    /// The images, or the vector.
    pub(crate) fn subjects(self) -> Result<Vec<QueryInput>> {
        match (self.images.is_empty(), self.vector) {
            (false, None) => Ok(self.images.into_iter().map(QueryInput::Image).collect()),
            (true, Some(vector)) => Ok(vec![QueryInput::Vector(vector)]),
            (false, Some(_)) => Err(Error::new(
                Kind::Malformed,
                "there are an image and a `vector`; send one of the two",
            )),
            (true, None) => {
                let detail = format!("the request holds neither an image nor a `vector`; {TAKEN}");
                Err(Error::new(Kind::Malformed, detail))
            }
        }
    }

    /// The items, whether they came as such or as the files of a form.
    pub(crate) fn into_items(self) -> Result<Vec<BodyItem>> {
        if self.images.is_empty() {
            Ok(self.items)
        } else {
            self.files_as_items()
        }
    }

    /// The files of a form as items; without a listing the name of a file is its id.
    fn files_as_items(self) -> Result<Vec<BodyItem>> {
        let most = self.images.len();
        let listed = self
            .listing
            .as_deref()
            .map(|text| BodyItem::read_listing(text, most))
            .transpose()?;
        if let Some(listed) = &listed
            && listed.len() != self.images.len()
        {
            let detail = format!(
                "lists {} items, and there are {} files",
                listed.len(),
                self.images.len()
            );
            return Err(Error::option("items", detail));
        }
        let mut listed = listed.unwrap_or_default().into_iter();
        let files = self.images.into_iter().zip(self.names);
        Ok(files
            .map(|(image, name)| BodyItem::of_file(image, name, listed.next()))
            .collect())
    }
}

fn body_too_large(config: &HttpConfig) -> Error {
    let most = config.max_body_bytes as u64;
    Error::new(
        Kind::TooLarge,
        format!("the body is larger than the limit of {most} bytes"),
    )
    .with_limit("max_body_bytes", most, "--max-body-bytes")
}

/// Refuses a body that says it is too large, before a byte of it is read.
fn check_content_length(headers: &HeaderMap, config: &HttpConfig) -> Result<()> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
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
    Ok(body
        .collect()
        .await
        .map_err(|error| body_error(&error, config))?
        .to_bytes())
}

async fn read_multipart(
    request: Request,
    config: &HttpConfig,
    contents: &mut Contents,
    options: &mut Options,
) -> Result<()> {
    let mut parts = Multipart::from_request(request, &())
        .await
        .map_err(|error| {
            Error::new(
                Kind::Malformed,
                format!("the multipart body cannot be read: {error}"),
            )
        })?;
    while let Some(part) = parts
        .next_field()
        .await
        .map_err(|error| body_error(&error, config))?
    {
        let name = part.name().unwrap_or_default().to_owned();
        let is_listing = contents.takes == Takes::Items && name == "items";
        let file_name = part
            .file_name()
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        let is_image = part.file_name().is_some()
            || part
                .content_type()
                .is_some_and(|kind| kind.starts_with("image/"))
            || matches!(name.as_str(), "image" | "images" | "file" | "files");
        let content = part
            .bytes()
            .await
            .map_err(|error| body_error(&error, config))?;
        if is_image && !is_listing {
            contents.add_image(content, file_name)?;
            continue;
        }
        let text = String::from_utf8(content.into())
            .map_err(|_| Error::option(&name, "not UTF-8; a file needs a file name in its part"))?;
        if !is_listing {
            check_length_of_text(&name, &text)?;
            options.add(name, Value::String(text))?;
        } else if contents.listing.replace(text).is_some() {
            return Err(Error::option("items", "given twice"));
        }
    }
    Ok(())
}
