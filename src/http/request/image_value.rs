//! Images in JSON: a text, or an object in one of the shapes of other APIs.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    image_text::{JsonString, decode_image, is_address, is_data_uri},
    json_list::read_list,
};
use crate::{
    error::{Error, Result},
    vision::begins_as_image,
};

/// Maximum depth of objects around an image. The deepest known shape is
/// `{"content": [{"image_url": {"url": "data:…"}}]}`.
const MAX_DEPTH: usize = 4;
/// Advice in errors about input that is no image.
const NOT_TEXT: &str = "this model embeds images, not text; send a data: URI";

/// Reads an image: base64 text, a `data:` URI, or an object that holds one. `name` names it in
/// errors.
pub(crate) fn read_image(value: &RawValue, name: &str) -> Result<Bytes> {
    read_nested(value, name, MAX_DEPTH, &decode_image)
}

/// Reads an image of a request in OpenAI's shape, where most clients send text. Base64 that is not
/// marked as a `data:` URI must therefore begin as an image does.
pub(crate) fn read_input(value: &RawValue, name: &str) -> Result<Bytes> {
    if value
        .get()
        .starts_with(|c: char| c == '[' || c == '-' || c.is_ascii_digit())
    {
        let detail = format!(
            "`{name}` must be a base64 string or data: URI; this model embeds images, not tokens \
             (LangChain sends text with check_embedding_ctx_length=False)"
        );
        return Err(Error::malformed(detail));
    }
    read_nested(value, name, MAX_DEPTH, &decode_input)
}

fn decode_input(text: &str, name: &str) -> Result<Bytes> {
    if is_data_uri(text) {
        return decode_image(text, name);
    }
    let decoded = decode_image(text, name);
    let is_text = match &decoded {
        Ok(bytes) => !begins_as_image(bytes),
        Err(_) => !is_address(text),
    };
    if is_text {
        let begin: String = text.chars().take(40).collect();
        return Err(Error::malformed(format!(
            "`{name}` is not an image: {begin:?}; {NOT_TEXT}"
        )));
    }
    decoded
}

/// Reads the image of a chat: the only one among the content parts of all messages.
pub(crate) fn read_messages(value: &RawValue, name: &str) -> Result<Bytes> {
    read_only_one(value, name, MAX_DEPTH, &decode_input)
}

/// An object that holds an image. Members that only describe it, such as `type` and `detail`, are
/// ignored.
#[derive(Deserialize)]
struct ImageObject<'a> {
    #[serde(borrow)]
    image: Option<&'a RawValue>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow)]
    image_base64: Option<&'a RawValue>,
    #[serde(borrow)]
    bytes: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

type DecodeText<'a> = &'a dyn Fn(&str, &str) -> Result<Bytes>;

fn read_nested(
    value: &RawValue,
    name: &str,
    depth: usize,
    decode: DecodeText<'_>,
) -> Result<Bytes> {
    let json = value.get();
    if json.starts_with('"') {
        let JsonString(text) = serde_json::from_str(json)
            .map_err(|error| Error::malformed(format!("`{name}` is not a valid text: {error}")))?;
        return decode(&text, name);
    }
    if !json.starts_with('{') {
        return Err(not_an_image(name));
    }
    if depth == 0 {
        let detail = format!("`{name}` is nested deeper than {MAX_DEPTH} objects");
        return Err(Error::malformed(detail));
    }
    let object: ImageObject<'_> = serde_json::from_str(json)
        .map_err(|error| Error::malformed(format!("`{name}` cannot be read: {error}")))?;
    if object.text.is_some() {
        return Err(Error::malformed(format!(
            "`{name}.text` is not an image; {NOT_TEXT}"
        )));
    }
    let members = [
        ("image", object.image),
        ("image_url", object.image_url),
        ("image_base64", object.image_base64),
        ("bytes", object.bytes),
        ("url", object.url),
        ("content", object.content),
    ];
    let mut given = members
        .into_iter()
        .filter_map(|(member, value)| Some((member, value?)));
    let Some((member, value)) = given.next() else {
        return Err(not_an_image(name));
    };
    if let Some((other, _)) = given.next() {
        let detail = format!("`{name}` has both `{member}` and `{other}`; leave one of them out");
        return Err(Error::malformed(detail));
    }
    let name = format!("{name}.{member}");
    if member == "content" && value.get().starts_with('[') {
        read_only_one(value, &name, depth - 1, decode)
    } else {
        read_nested(value, &name, depth - 1, decode)
    }
}

/// Reads a list that holds exactly one image.
fn read_only_one(
    list: &RawValue,
    name: &str,
    depth: usize,
    decode: DecodeText<'_>,
) -> Result<Bytes> {
    let not_one = |found: &str| {
        Error::malformed(format!(
            "`{name}` must hold exactly one image, not {found} entries"
        ))
    };
    let mut only = None;
    // Fails at the second entry, before more are read.
    let read = read_list(list.get(), "objects", |part, _| match only.replace(part) {
        None => Ok(()),
        Some(_) => Err(not_one("several")),
    });
    read?.map_err(|error| Error::malformed(format!("`{name}`: {error}")))?;
    let part = only.ok_or_else(|| not_one("0"))?;
    read_nested(part, &format!("{name}[0]"), depth, decode)
}

fn not_an_image(name: &str) -> Error {
    Error::malformed(format!(
        "`{name}` must be a base64 string or data: URI, or an object with `image` or `image_url`"
    ))
}
