//! JSON bodies, read member by member.
//!
//! Base64 text is decoded straight from the body, a limit of images and items ends the reading at
//! once, and nothing but images, vectors and option values is ever built. A member that is null
//! counts as absent.

use std::borrow::Cow;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::{Number, value::RawValue};

use crate::{
    error::{Error, Result},
    gallery::{Binding, ItemId},
    http::request::{
        contents::{BatchEntry, BodyKind, Contents, ListingEntry, ParsedBody, QueryInputs},
        image_text::JsonString,
        image_value::{read_image, read_input, read_messages},
        json_list::{List, read_list},
        options::{Options, option_value},
    },
    service::QueryInput,
};

/// Reads a JSON object into a body and its options.
pub(crate) fn read_json(json: &[u8], body: &mut ParsedBody, options: &mut Options) -> Result<()> {
    let json = without_bom(json);
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
        let hint = syntax_hint(json, &error);
        Error::malformed(format!("the JSON cannot be read: {error}{hint}"))
    })
}

/// Removes the byte order mark, with which Windows programs begin UTF-8.
pub(crate) fn without_bom(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// Explains an error of syntax: JSON that was cut off, or a number that JSON cannot hold but
/// Python's json module writes.
fn syntax_hint(json: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return format!(
            "; the body ends after {} bytes, before the JSON does",
            json.len()
        );
    }
    let mut lines = json.split(|byte| *byte == b'\n');
    let line = lines
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let start = error.column().checked_sub(1);
    let token = start
        .and_then(|start| line.get(start..))
        .unwrap_or_default();
    if token.starts_with(b"NaN") || token.starts_with(b"Infinity") {
        return "; JSON has no NaN and no Infinity".to_owned();
    }
    String::new()
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
        file_name: None,
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
            ("image", BodyKind::Images | BodyKind::ImagesOrVector | BodyKind::MaskedImages) => {
                let value: Option<&RawValue> = members.next_value()?;
                Ok(value.map_or(Ok(()), |value| {
                    self.body.add_image(read_image(value, "image")?, None)
                }))
            }
            ("mask", BodyKind::MaskedImages) => {
                let value: Option<&RawValue> = members.next_value()?;
                Ok(value.map_or(Ok(()), |value| {
                    self.body.add_mask(read_image(value, "mask")?)
                }))
            }
            ("masks", BodyKind::MaskedImages) => {
                let of = "base64 strings or data: URIs in `masks`";
                let failure = &mut *self.failure;
                let each = |value: &RawValue, index| {
                    let mask = read_image(value, &format!("masks[{index}]"))?;
                    self.body.add_mask(mask)
                };
                members.next_value_seed(List { of, each, failure }).map(Ok)
            }
            ("images", BodyKind::Images | BodyKind::ImagesOrVector | BodyKind::MaskedImages) => {
                let of = "base64 strings or data: URIs in `images`";
                let failure = &mut *self.failure;
                let each = |value: &RawValue, index| {
                    let image = read_image(value, &format!("images[{index}]"))?;
                    self.body.add_image(image, None)
                };
                members.next_value_seed(List { of, each, failure }).map(Ok)
            }
            ("input" | "messages", BodyKind::Input) => {
                let value: Option<&RawValue> = members.next_value()?;
                Ok(value.map_or(Ok(()), |value| add_input(&name, value, self.body)))
            }
            ("items", BodyKind::Items) => {
                let of = "objects in `items`";
                let failure = &mut *self.failure;
                let each = |value: &RawValue, _| self.body.add_entry(|max| read_entry(value, max));
                members.next_value_seed(List { of, each, failure }).map(Ok)
            }
            ("vector", BodyKind::ImagesOrVector) => {
                let value: Option<&RawValue> = members.next_value()?;
                Ok(value.map_or(Ok(()), |value| {
                    // The body's limit bounds it.
                    let vector: Vec<f32> = serde_json::from_str(value.get()).map_err(|error| {
                        Error::option("vector", format!("not a list of numbers: {error}"))
                    })?;
                    if vector.len() > Binding::MAX_DIM {
                        let max = Binding::MAX_DIM;
                        let detail = format!("has more than {max} values, the most of any model");
                        return Err(Error::option("vector", detail));
                    }
                    self.body.add_vector(vector)
                }))
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
            BodyKind::MaskedImages => "an object with `images` and `masks`",
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

/// Adds the images of a request in OpenAI's shape: of `input` or of `messages`.
fn add_input(member: &str, value: &RawValue, body: &mut ParsedBody) -> Result<()> {
    if body.image_count() > 0 {
        let detail = "the request has both `input` and `messages`; leave one of them out";
        return Err(Error::malformed(detail));
    }
    if member == "messages" {
        return body.add_image(read_messages(value, member)?, None);
    }
    if !value.get().starts_with('[') {
        return body.add_image(read_input(value, member)?, None);
    }
    let each = |value: &RawValue, index| {
        body.add_image(read_input(value, &format!("{member}[{index}]"))?, None)
    };
    read_list(value.get(), "base64 strings or data: URIs", each)?
        .map_err(|error| Error::malformed(format!("`{member}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(json: &str) -> String {
        let mut body = ParsedBody::new(BodyKind::ImagesOrVector, 4);
        let read = read_json(json.as_bytes(), &mut body, &mut Options::default());
        read.expect_err(json).detail().to_owned()
    }

    #[test]
    fn numbers_that_json_lacks_are_named_only_where_they_stand() {
        for json in [
            "{\"vector\": [1, NaN]}",
            "{\"vector\": [1,\n -Infinity]}",
            "{\"size\":Infinity, \"a\": \"",
        ] {
            assert!(
                failure(json).ends_with("; JSON has no NaN and no Infinity"),
                "{json}"
            );
        }
        for json in [
            "{\"image\": \"aNaNInfinity",
            "{\"image\": \"NaN\", \"size\": nan}",
            "{\"image\": \"\nNaN\"}",
        ] {
            assert!(
                !failure(json).contains("JSON has no NaN"),
                "{json}: {}",
                failure(json)
            );
        }
    }

    #[test]
    fn json_that_was_cut_off_is_named() {
        let whole = "{\"images\": [\"NaN\"], \"size\": 14}";
        for end in 0..whole.len() {
            let ending = format!("; the body ends after {end} bytes, before the JSON does");
            assert!(
                failure(&whole[..end]).ends_with(&ending),
                "{}",
                failure(&whole[..end])
            );
        }
    }

    #[test]
    fn null_is_the_default_of_every_member() {
        for kind in [BodyKind::ImagesOrVector, BodyKind::Items, BodyKind::Input] {
            let json =
                "\u{feff}{\"image\": null, \"images\": null, \"vector\": null, \"size\": null,
                \"items\": null, \"input\": null, \"messages\": null, \"metadata\": null}";
            let mut options = Options::default();
            let mut body = ParsedBody::new(kind, 4);
            read_json(json.as_bytes(), &mut body, &mut options).expect("nothing is given");
            assert_eq!(body.image_count(), 0);
            options.reject_unknown().expect("no option is given");
        }
    }
}
