//! JSON bodies, read member by member.
//!
//! Base64 text is decoded straight from the body, a limit ends the reading at once, and nothing but
//! images, vectors and option values is ever built.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, value::RawValue};

use crate::{
    error::{Error, Result},
    gallery::ItemId,
    http::request::{
        contents::{BatchEntry, BodyKind, Contents, ListingEntry, ParsedBody, QueryInputs},
        options::{Options, option_value},
    },
    service::QueryInput,
};

/// Reads a JSON object into a body and its options.
pub(crate) fn read_json(json: &[u8], body: &mut ParsedBody, options: &mut Options) -> Result<()> {
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = deserializer
        .deserialize_map(BodyVisitor {
            body,
            options,
            failure: &mut failure,
        })
        .and_then(|()| deserializer.end());
    failure.map_or(Ok(()), Err)?;
    read.map_err(|error| {
        // Python's json module writes these.
        let has_non_finite = [&b"NaN"[..], b"Infinity"]
            .iter()
            .any(|name| json.windows(name.len()).any(|bytes| bytes == *name));
        let hint = match has_non_finite {
            true => "; JSON has no NaN and no Infinity",
            false => "",
        };
        Error::malformed(format!("the JSON cannot be read: {error}{hint}"))
    })
}

/// Reads the form part `items`: a JSON list of up to `max_entries` objects. Each entry has its own
/// outcome.
pub(crate) fn read_listing(text: &str, max_entries: usize) -> Result<Vec<ListingEntry>> {
    let mut listing = Vec::new();
    let read = read_list(text, "objects, one per file", |value, index| {
        if index == max_entries {
            let detail =
                format!("the list has more entries than the form has files ({max_entries})");
            return Err(Error::option("items", detail));
        }
        let read = read_object(value, ParsedBody::new(BodyKind::Options, 0));
        listing.push(ListingEntry {
            id: read_id(value),
            options: read.map(|(_, options)| options),
        });
        Ok(())
    })?;
    read.map_err(|error| {
        let detail = format!("not a JSON list with one object per file: {error}");
        Error::option("items", detail)
    })?;
    Ok(listing)
}

/// Reads an item of the member `items`.
fn read_entry(value: &RawValue, max_images: usize) -> BatchEntry {
    BatchEntry {
        id: read_id(value),
        content: read_item(value, max_images),
    }
}

fn read_item(value: &RawValue, max_images: usize) -> Result<(QueryInput, Options)> {
    let body = ParsedBody::new(QueryInputs::KIND, max_images);
    let (body, options) = read_object(value, body)?;
    Ok((QueryInputs::from_body(body)?.single()?, options))
}

fn read_object(value: &RawValue, mut body: ParsedBody) -> Result<(ParsedBody, Options)> {
    let mut options = Options::default();
    read_json(value.get().as_bytes(), &mut body, &mut options)?;
    Ok((body, options))
}

/// Reads only the id of an item, so that the error of an item that cannot be read can name it. A
/// number counts as an id.
fn read_id(value: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct WithId<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    let WithId { id } = serde_json::from_str(value.get()).ok()?;
    serde_json::from_str::<String>(id.get())
        .or_else(|_| serde_json::from_str::<Number>(id.get()).map(|id| id.to_string()))
        .ok()
        .filter(|id| id.len() <= ItemId::MAX_BYTES)
}

/// Reads the members of a body. Leaves an error in `failure`, since serde can return only its own
/// error type.
struct BodyVisitor<'a> {
    body: &'a mut ParsedBody,
    options: &'a mut Options,
    failure: &'a mut Option<Error>,
}

impl BodyVisitor<'_> {
    /// Reads the value of a member. The outer error is one of JSON syntax.
    fn read_member<'de, M: MapAccess<'de>>(
        &mut self,
        name: Cow<'de, str>,
        members: &mut M,
    ) -> Result<Result<()>, M::Error> {
        match (name.as_ref(), self.body.kind) {
            ("image", BodyKind::Images | BodyKind::ImagesOrVector) => {
                Ok(add_image(members.next_value()?, "image", self.body))
            }
            ("images", BodyKind::Images | BodyKind::ImagesOrVector) => {
                let of = "base64 strings or data: URIs in `images`";
                let failure = &mut *self.failure;
                let each = |value: &RawValue, index| {
                    add_image(value, &format!("images[{index}]"), self.body)
                };
                members.next_value_seed(List { of, each, failure }).map(Ok)
            }
            ("input", BodyKind::Input) => Ok(add_images(members.next_value()?, "input", self.body)),
            ("items", BodyKind::Items) => {
                let of = "objects in `items`";
                let failure = &mut *self.failure;
                let each = |value: &RawValue, _| self.body.add_entry(|max| read_entry(value, max));
                members.next_value_seed(List { of, each, failure }).map(Ok)
            }
            ("vector", BodyKind::ImagesOrVector) => {
                let value: &RawValue = members.next_value()?;
                Ok(serde_json::from_str(value.get())
                    .map_err(|error| {
                        Error::option("vector", format!("not a list of numbers: {error}"))
                    })
                    .and_then(|vector| self.body.add_vector(vector)))
            }
            _ => {
                let value: &RawValue = members.next_value()?;
                Ok(option_value(&name, value)
                    .and_then(|value| self.options.add(name.into_owned(), value)))
            }
        }
    }
}

impl<'de> Visitor<'de> for BodyVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.body.kind {
            BodyKind::Images => "an object with `image` or `images`",
            BodyKind::ImagesOrVector => "an object with `image`, `images` or `vector`",
            BodyKind::Items => "an object with `items`",
            BodyKind::Input => "an object with `input`",
            BodyKind::Options => "an object",
        })
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut members: M) -> Result<(), M::Error> {
        while let Some(JsonString(name)) = members.next_key::<JsonString<'de>>()? {
            if let Err(error) = self.read_member(name, &mut members)? {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("a member is invalid"));
            }
        }
        Ok(())
    }
}

fn add_image(value: &RawValue, name: &str, body: &mut ParsedBody) -> Result<()> {
    let JsonString(text) = serde_json::from_str(value.get())
        .map_err(|_| Error::malformed(format!("`{name}` must be a base64 string or data: URI")))?;
    body.add_image(decode_base64(&text, name)?, None)
}

/// Adds an image or a list of images.
fn add_images(value: &RawValue, name: &str, body: &mut ParsedBody) -> Result<()> {
    if !value.get().starts_with('[') {
        return add_image(value, name, body);
    }
    let each = |value: &RawValue, index| add_image(value, &format!("{name}[{index}]"), body);
    read_list(value.get(), "base64 strings or data: URIs", each)?
        .map_err(|error| Error::malformed(format!("`{name}`: {error}")))
}

/// Reads a list. The outer error is one of an element, the inner one of JSON syntax.
fn read_list(
    json: &str,
    of: &'static str,
    each: impl FnMut(&RawValue, usize) -> Result<()>,
) -> Result<serde_json::Result<()>> {
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let list = List {
        of,
        each,
        failure: &mut failure,
    };
    let read = list
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    failure.map_or(Ok(read), Err)
}

/// A list whose elements are handled one by one, as they are read.
struct List<'a, F> {
    /// What the elements are, for error messages.
    of: &'static str,
    each: F,
    failure: &'a mut Option<Error>,
}

impl<'de, F: FnMut(&RawValue, usize) -> Result<()>> DeserializeSeed<'de> for List<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&RawValue, usize) -> Result<()>> Visitor<'de> for List<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of {}", self.of)
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut elements: S) -> Result<(), S::Error> {
        let mut index = 0;
        while let Some(value) = elements.next_element::<&RawValue>()? {
            if let Err(error) = (self.each)(value, index) {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("an element is invalid"));
            }
            index += 1;
        }
        Ok(())
    }
}

/// A string, borrowed from the JSON text if it has no escapes.
#[derive(Deserialize)]
struct JsonString<'a>(#[serde(borrow)] Cow<'a, str>);

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decode_base64(text: &str, name: &str) -> Result<Bytes> {
    let malformed = |what: &str| Error::malformed(format!("`{name}`: {what}"));
    if text.starts_with("http://") || text.starts_with("https://") {
        let what = "URLs are not fetched; send the image itself, base64-encoded";
        return Err(malformed(what));
    }
    let encoded = match text.strip_prefix("data:").map(|uri| uri.split_once(',')) {
        None => text,
        Some(Some((kind, data))) if kind.ends_with(";base64") => data,
        Some(_) => {
            let what = "the data: URI is not base64; send data:image/png;base64,…";
            return Err(malformed(what));
        }
    };
    let decoded = if encoded.bytes().any(|byte| byte.is_ascii_whitespace()) {
        BASE64.decode(encoded.split_ascii_whitespace().collect::<String>())
    } else {
        BASE64.decode(encoded)
    };
    let decoded = decoded.map_err(|error| malformed(&format!("not base64: {error}")))?;
    Ok(decoded.into())
}
