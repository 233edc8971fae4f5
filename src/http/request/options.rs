//! Options from the query, from form fields and from JSON, as one set of names and values.
//!
//! A text value is parsed as the type that the option has. An unknown name is an error that lists
//! the known names.

use std::collections::BTreeMap;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{
    Deserializer,
    de::{DeserializeOwned, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use serde_json::{Value, value::RawValue};
use utoipa::IntoParams;

use super::lenient::{JsonError, Lenient};
use crate::{
    error::{Error, Kind, Result},
    gallery::Binding,
    http::{AppState, Rejection},
    names::did_you_mean,
};

/// Maximum number of options in a request; more than any operation has.
const MAX_OPTIONS: usize = 64;
/// Options whose value may be a JSON object. All others are plain values.
const OBJECT_OPTIONS: [&str; 2] = ["metadata", "where"];
/// Option whose value is a list of numbers.
const FEATURES: &str = "features";
/// Maximum length of an object as JSON text, in bytes: more than any valid one has, however it is
/// spaced and escaped.
const MAX_OBJECT_BYTES: usize = 128 << 10;
/// Maximum length of a plain value, in bytes: more than an id has whose every byte is escaped.
const MAX_VALUE_BYTES: usize = 4096;

/// Options of a request that were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Options {
    values: BTreeMap<String, Value>,
    /// Names of all options that were asked for, given or not.
    known: Vec<&'static str>,
}

impl Options {
    /// Adds an option, unless the request has it already. Null stands for the default.
    pub(crate) fn add(&mut self, name: String, value: Value) -> Result<()> {
        if value.is_null() {
            return Ok(());
        }
        if self.values.contains_key(&name) {
            return Err(Error::option(&name, "given twice"));
        }
        if self.values.len() == MAX_OPTIONS {
            let detail = format!("the request has more than {MAX_OPTIONS} options");
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        self.values.insert(name, value);
        Ok(())
    }

    /// Adds the options of a URL's query.
    pub(crate) fn add_query(&mut self, query: &str) -> Result<()> {
        // The form decoder would replace invalid bytes instead of failing.
        if percent_encoding::percent_decode_str(query)
            .decode_utf8()
            .is_err()
        {
            let detail = "the query is not valid: percent-decoded, it must be UTF-8";
            return Err(Error::malformed(detail));
        }
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
            .map_err(|error| Error::malformed(format!("the query cannot be read: {error}")))?;
        pairs
            .into_iter()
            .try_for_each(|(name, value)| self.add(name, Value::String(value)))
    }

    /// Returns whether an option was given and not taken yet.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Takes the options that are fields of `T`.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Result<T> {
        serde_path_to_error::deserialize(&mut *self).map_err(|error| {
            let path = error.path().to_string();
            let detail = error.into_inner().to_string();
            let name = path.split('.').next().unwrap_or_default();
            Error::option(name, detail)
        })
    }

    /// Rejects every option of `T`, because `other` was given.
    pub(crate) fn reject<T: IntoParams>(&self, other: &str) -> Result<()> {
        for option in T::into_params(|| None) {
            if self.contains(&option.name) {
                let detail = format!("cannot be combined with `{other}`; leave one of them out");
                return Err(Error::option(&option.name, detail));
            }
        }
        Ok(())
    }

    /// Rejects options that no earlier call took. The error lists the known names.
    pub(crate) fn reject_unknown(self) -> Result<()> {
        let Some(name) = self.values.keys().next() else {
            return Ok(());
        };
        let detail = if self.known.is_empty() {
            "unknown; this operation has no options".to_owned()
        } else {
            let suggestion = did_you_mean(name, self.known.iter().copied());
            let known = self.known.join(", ");
            format!("unknown; expected one of {known}{suggestion}")
        };
        Err(Error::option(name, detail))
    }
}

/// Options of a request without a body.
impl FromRequestParts<AppState> for Options {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Rejection> {
        let mut options = Self::default();
        options.add_query(parts.uri.query().unwrap_or_default())?;
        Ok(options)
    }
}

/// Reads the value of an option from a JSON body. A list, or an object where none is allowed, is
/// not even parsed; [`FEATURES`] is a list of numbers.
pub(crate) fn option_value(name: &str, value: &RawValue) -> Result<Value> {
    let value = value.get();
    if OBJECT_OPTIONS.contains(&name) {
        check_object_length(name, value)?;
        // Fails for too many levels, or a number that no f64 holds.
        return serde_json::from_str(value).map_err(|error| Error::option(name, error));
    }
    if name == FEATURES && value.starts_with('[') {
        check_length(name, value)?;
        return serde_json::from_str(value).map_err(|error| Error::option(name, error));
    }
    if value.starts_with(['[', '{']) || value.len() > MAX_VALUE_BYTES {
        return Err(not_a_plain_value(name));
    }
    serde_json::from_str(value).map_err(|_| not_a_plain_value(name))
}

/// Rejects a list of more numbers than any model makes, so that it is not parsed.
fn check_length(name: &str, list: &str) -> Result<()> {
    let max = Binding::MAX_FEATURES;
    if list.bytes().filter(|byte| *byte == b',').count() < max {
        return Ok(());
    }
    let detail = format!("has more than {max} values, the most of any model");
    Err(Error::option(name, detail))
}

fn not_a_plain_value(name: &str) -> Error {
    Error::option(name, "must be a string, a number, true or false")
}

/// Returns an option that is JSON, and parses it if it came as text. Null stands for the default.
pub(crate) fn parsed_object(name: &str, value: Option<Value>) -> Result<Option<Value>> {
    let Some(Value::String(text)) = value else {
        return Ok(value);
    };
    check_object_length(name, &text)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::option(name, format!("not valid JSON: {error}")))
}

/// Rejects the text of a form field that is longer than any valid option, so that it is neither
/// parsed nor repeated in a message.
pub(crate) fn check_text_length(name: &str, text: &str) -> Result<()> {
    if OBJECT_OPTIONS.contains(&name) {
        return check_object_length(name, text);
    }
    if text.len() <= MAX_VALUE_BYTES {
        return Ok(());
    }
    let detail = format!(
        "{} bytes long, over the limit of {MAX_VALUE_BYTES}; the part of a file needs a file name",
        text.len()
    );
    Err(Error::option(name, detail))
}

fn check_object_length(name: &str, text: &str) -> Result<()> {
    if text.len() <= MAX_OBJECT_BYTES {
        return Ok(());
    }
    let bytes = text.len();
    let detail =
        format!("option `{name}` is {bytes} bytes long, over the limit of {MAX_OBJECT_BYTES}");
    Err(Error::new(Kind::TooLarge, detail))
}

impl<'de> Deserializer<'de> for &mut Options {
    type Error = JsonError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.known.extend(fields);
        let found: Vec<_> = fields
            .iter()
            .filter_map(|&name| Some((name, Lenient(self.values.remove(name)?))))
            .collect();
        visitor.visit_map(MapDeserializer::new(found.into_iter()))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, JsonError> {
        Err(serde::de::Error::custom(
            "options can be read only into a struct",
        ))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize, IntoParams)]
    struct Sample {
        #[serde(default)]
        count: Option<usize>,
        #[serde(default)]
        name: String,
    }

    fn options(query: &str) -> Options {
        let mut options = Options::default();
        options.add_query(query).unwrap();
        options
    }

    #[test]
    fn a_text_option_may_look_like_a_number() {
        let sample: Sample = options("count=3&name=12").take().unwrap();
        let expected = Sample {
            count: Some(3),
            name: "12".to_owned(),
        };
        assert_eq!(sample, expected);
    }

    #[test]
    fn unknown_options_are_rejected_with_the_known_names() {
        let mut options = options("count=3&cuont=4");
        options.take::<Sample>().unwrap();
        let error = options.reject_unknown().unwrap_err();
        let expected =
            "option `cuont`: unknown; expected one of count, name; did you mean `count`?";
        assert_eq!(error.detail(), expected);
    }

    #[test]
    fn options_of_another_kind_are_rejected_by_name() {
        assert!(options("other=1").reject::<Sample>("probe").is_ok());
        let error = options("name=a").reject::<Sample>("probe").unwrap_err();
        assert!(error.detail().starts_with("option `name`"), "{error}");
    }
}
