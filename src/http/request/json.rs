//! JSON bodies, read member by member: base64 text is decoded straight from the body, a limit ends
//! the reading at once, and nothing but images, vectors and the values of options is ever built.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

use crate::{
    error::{Error, Kind, Result},
    gallery::ItemId,
    http::request::{
        body::{Contents, Takes},
        options::Options,
    },
    service::QueryInput,
};

/// Options that may be objects. The others are plain values.
const OBJECTS: [&str; 2] = ["metadata", "where"];

/// Most bytes of an object as JSON text: more than any that will do, however it is spaced and
/// escaped.
const MOST_OF_OBJECT: usize = 128 << 10;

/// Most bytes of a plain value: a long id whose every byte is escaped, and some more.
const MOST_OF_VALUE: usize = 4096;

/// An item of a list of them.
pub(crate) struct BodyItem {
    /// Its id, as far as it can be told even if something else is wrong.
    pub(crate) id: Option<String>,
    /// What it shows and its options, or what is wrong.
    pub(crate) content: Result<(QueryInput, Options)>,
}

impl BodyItem {
    fn read(value: &RawValue, most: usize) -> Self {
        let (id, content) = read_element(value, Contents::new(Takes::ImagesOrVector, most));
        let content = content.and_then(|(contents, options)| {
            let mut subjects = contents.subjects()?;
            match (subjects.pop(), subjects.is_empty()) {
                (Some(subject), true) => Ok((subject, options)),
                _ => Err(Error::new(Kind::Malformed, "an item has one image")),
            }
        });
        Self { id, content }
    }

    /// The options of `most` items at most, as a JSON list. Each has its own outcome.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for what is no list, or a longer one.
    pub(crate) fn read_listing(text: &str, most: usize) -> Result<Vec<Listed>> {
        let (mut listed, mut failure) = (Vec::new(), None);
        let each = |value: &RawValue, index| {
            if index == most {
                return Err(Error::option(
                    "items",
                    format!("lists more items than there are files, which are {most}"),
                ));
            }
            let (id, content) = read_element(value, Contents::new(Takes::Nothing, 0));
            listed.push(Listed {
                id,
                options: content.map(|(_, options)| options),
            });
            Ok(())
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let list = List {
            of: "objects, one a file",
            each,
            failure: &mut failure,
        };
        let read = list
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        match (failure, read) {
            (Some(error), _) => Err(error),
            (None, read) => read.map(|()| listed).map_err(|error| {
                Error::option("items", format!("no JSON list, one object a file: {error}"))
            }),
        }
    }

    /// A file with what a listing says of it. Its name is its id if that says none.
    pub(crate) fn of_file(image: Bytes, name: Option<String>, listed: Option<Listed>) -> Self {
        let Listed { id, options } = listed.unwrap_or_default();
        let id = id.or_else(|| name.clone());
        let content = options.and_then(|mut options| {
            if let Some(name) = name.filter(|_| !options.holds("id")) {
                options.add("id".to_owned(), Value::String(name))?;
            }
            Ok((QueryInput::Image(image), options))
        });
        Self { id, content }
    }
}

/// What a listing says of an item.
pub(crate) struct Listed {
    id: Option<String>,
    options: Result<Options>,
}

impl Default for Listed {
    fn default() -> Self {
        Self {
            id: None,
            options: Ok(Options::default()),
        }
    }
}

/// Reads an object of a list, and its id by itself, so that an item that cannot be read has a name.
fn read_element(
    value: &RawValue,
    mut contents: Contents,
) -> (Option<String>, Result<(Contents, Options)>) {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    let named: Option<Named<'_>> = serde_json::from_str(value.get()).ok();
    let id = named.and_then(|Named { id }| {
        let id = id.get();
        // A number is an id, too.
        let number = || {
            Some(
                serde_json::from_str::<serde_json::Number>(id)
                    .ok()?
                    .to_string(),
            )
        };
        serde_json::from_str::<String>(id)
            .ok()
            .or_else(number)
            .filter(|id| id.len() <= ItemId::MAX_BYTES)
    });
    let mut options = Options::default();
    let read = read_json(value.get().as_bytes(), &mut contents, &mut options);
    (id, read.map(|()| (contents, options)))
}

/// Reads a JSON object into what it holds and its options.
pub(crate) fn read_json(body: &[u8], contents: &mut Contents, options: &mut Options) -> Result<()> {
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = deserializer
        .deserialize_map(Members {
            contents,
            options,
            failure: &mut failure,
        })
        .and_then(|()| deserializer.end());
    match (failure, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => {
            // What Python writes for a number that is none.
            let names = [&b"NaN"[..], b"Infinity"];
            let hint = if names
                .iter()
                .any(|name| body.windows(name.len()).any(|bytes| bytes == *name))
            {
                "; NaN and Infinity are no JSON"
            } else {
                ""
            };
            Err(Error::new(
                Kind::Malformed,
                format!("the JSON cannot be read: {error}{hint}"),
            ))
        }
        (None, Ok(())) => Ok(()),
    }
}

/// Takes the members of the object; what is wrong with one is left in `failure`, since serde knows
/// only its own errors.
struct Members<'a> {
    contents: &'a mut Contents,
    options: &'a mut Options,
    failure: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.contents.takes {
            Takes::Images => "an object with `image` or `images`",
            Takes::ImagesOrVector => "an object with `image`, `images` or `vector`",
            Takes::Items => "an object with `items`",
            Takes::Input => "an object with `input`",
            Takes::Nothing => "an object",
        })
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(Text(name)) = members.next_key::<Text<'de>>()? {
            let taken = match (name.as_ref(), self.contents.takes) {
                ("image", Takes::Images | Takes::ImagesOrVector) => {
                    let value: &RawValue = members.next_value()?;
                    one_image(value, "image", self.contents)
                }
                ("images", Takes::Images | Takes::ImagesOrVector) => {
                    let of = "base64 strings or data: URIs in `images`";
                    let each = |value: &RawValue, index| {
                        one_image(value, &format!("images[{index}]"), self.contents)
                    };
                    members.next_value_seed(List {
                        of,
                        each,
                        failure: &mut *self.failure,
                    })?;
                    Ok(())
                }
                ("input", Takes::Input) => {
                    let value: &RawValue = members.next_value()?;
                    several_images(value, "input", self.contents)
                }
                ("items", Takes::Items) => {
                    let each = |value: &RawValue, _| {
                        self.contents.add_item(|most| BodyItem::read(value, most))
                    };
                    members.next_value_seed(List {
                        of: "objects in `items`",
                        each,
                        failure: &mut *self.failure,
                    })?;
                    Ok(())
                }
                ("vector", Takes::ImagesOrVector) => {
                    let value: &RawValue = members.next_value()?;
                    let vector = serde_json::from_str(value.get()).map_err(|error| {
                        Error::option("vector", format!("no list of numbers: {error}"))
                    });
                    vector.and_then(|vector| self.contents.add_vector(vector))
                }
                _ => {
                    let value: &RawValue = members.next_value()?;
                    option_value(value, &name)
                        .and_then(|value| self.options.add(name.into_owned(), value))
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

fn one_image(value: &RawValue, name: &str, contents: &mut Contents) -> Result<()> {
    let text: Text<'_> = serde_json::from_str(value.get()).map_err(|_| {
        Error::new(
            Kind::Malformed,
            format!("`{name}` must be a base64 string or data: URI"),
        )
    })?;
    contents.add_image(from_base64(&text.0, name)?, None)
}

/// An image, or a list of them.
fn several_images(value: &RawValue, name: &str, contents: &mut Contents) -> Result<()> {
    if !value.get().starts_with('[') {
        return one_image(value, name, contents);
    }
    let mut failure = None;
    let each = |value: &RawValue, index| one_image(value, &format!("{name}[{index}]"), contents);
    let list = List {
        of: "base64 strings or data: URIs",
        each,
        failure: &mut failure,
    };
    let read = list.deserialize(&mut serde_json::Deserializer::from_str(value.get()));
    match (failure, read) {
        (Some(error), _) => Err(error),
        (None, read) => {
            read.map_err(|error| Error::new(Kind::Malformed, format!("`{name}`: {error}")))
        }
    }
}

/// Most options are plain values; a list or object is not even read.
fn option_value(value: &RawValue, name: &str) -> Result<Value> {
    let value = value.get();
    if OBJECTS.contains(&name) {
        check_length_of_object(name, value)?;
        // A depth that the parser does not follow, or a number that no f64 holds.
        return serde_json::from_str(value).map_err(|error| Error::option(name, error));
    }
    let wrong = || Error::option(name, "must be a text, a number, true or false");
    if value.starts_with(['[', '{']) || value.len() > MOST_OF_VALUE {
        return Err(wrong());
    }
    serde_json::from_str(value).map_err(|_| wrong())
}

/// Refuses the text of an option in a form that is longer than any that will do, so that it is
/// neither read nor repeated.
pub(crate) fn check_length_of_text(name: &str, text: &str) -> Result<()> {
    if OBJECTS.contains(&name) {
        return check_length_of_object(name, text);
    }
    if text.len() <= MOST_OF_VALUE {
        return Ok(());
    }
    let detail = format!(
        "is {} bytes long, more than the limit of {MOST_OF_VALUE}; a file needs a file name",
        text.len()
    );
    Err(Error::option(name, detail))
}

/// Refuses the text of an object that is longer than any that will do.
pub(crate) fn check_length_of_object(name: &str, text: &str) -> Result<()> {
    if text.len() <= MOST_OF_OBJECT {
        return Ok(());
    }
    let detail = format!(
        "option `{name}` is {} bytes long, more than the limit of {MOST_OF_OBJECT}",
        text.len()
    );
    Err(Error::new(Kind::TooLarge, detail))
}

/// A list of which each element is taken as it is read.
struct List<'a, F> {
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

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut items: S) -> Result<(), S::Error> {
        let mut index = 0;
        while let Some(value) = items.next_element::<&RawValue>()? {
            if let Err(error) = (self.each)(value, index) {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom(
                    "an element is not as it should be",
                ));
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
        return Err(malformed(
            "addresses are not fetched; send the image itself, base64-encoded".to_owned(),
        ));
    }
    let encoded = match text.strip_prefix("data:") {
        Some(uri) => match uri.split_once(',') {
            Some((kind, data)) if kind.ends_with(";base64") => data,
            _ => {
                return Err(malformed(
                    "the data: URI is not base64 (data:image/png;base64,…)".to_owned(),
                ));
            }
        },
        None => text,
    };
    let without_breaks: Cow<'_, str> = if encoded.bytes().any(|byte| byte.is_ascii_whitespace()) {
        encoded.split_ascii_whitespace().collect::<String>().into()
    } else {
        encoded.into()
    };
    let decoded = BASE64
        .decode(without_breaks.as_bytes())
        .map_err(|error| malformed(format!("not base64: {error}")))?;
    Ok(decoded.into())
}
