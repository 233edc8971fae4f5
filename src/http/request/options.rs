//! Options from the query, from form fields and from JSON, as one set of names and values.
//!
//! Values that come as text are read as what the option needs; a name that no option has is an
//! error that lists the names there are.

use std::collections::BTreeMap;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use serde_json::Value;

use crate::{
    error::{Error, Kind, Result},
    http::AppState,
    service::{Decoding, ImageOptions},
};

/// More options than any endpoint has.
const MAX_OPTIONS: usize = 64;

/// The options of a request that have not been taken yet.
#[derive(Debug, Default)]
pub(crate) struct Options {
    values: BTreeMap<String, Value>,
    known: Vec<&'static str>,
}

impl Options {
    /// Adds an option.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] if it was given before.
    pub(crate) fn add(&mut self, name: String, value: Value) -> Result<()> {
        if self.values.contains_key(&name) {
            return Err(Error::option(&name, "given twice"));
        }
        if self.values.len() == MAX_OPTIONS {
            return Err(Error::new(
                Kind::InvalidOption,
                format!("there are more than {MAX_OPTIONS} options"),
            ));
        }
        self.values.insert(name, value);
        Ok(())
    }

    /// Whether an option was given and has not been taken.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Adds the options of a URL's query.
    ///
    /// # Errors
    /// [`Kind::Malformed`] for a query that is no form encoding of UTF-8, and as [`Options::add`].
    pub(crate) fn add_query(&mut self, query: &str) -> Result<()> {
        // The form decoder would put a replacement character where a byte makes no sense.
        if percent_encoding::percent_decode_str(query)
            .decode_utf8()
            .is_err()
        {
            return Err(Error::new(
                Kind::Malformed,
                "the query is not UTF-8 in percent-encoding",
            ));
        }
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(|error| {
            Error::new(
                Kind::Malformed,
                format!("the query cannot be read: {error}"),
            )
        })?;
        pairs
            .into_iter()
            .try_for_each(|(name, value)| self.add(name, Value::String(value)))
    }

    /// Takes the options that `T` has.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] that names the option, what is wrong with its value and what would
    /// be right.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Result<T> {
        serde_path_to_error::deserialize(&mut *self).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner().to_string();
            let name = path.split('.').next().unwrap_or_default();
            Error::option(name, inner)
        })
    }

    /// Takes the options of images.
    ///
    /// # Errors
    /// As [`Options::take`].
    pub(crate) fn take_image(&mut self) -> Result<ImageOptions> {
        let overrides = self.take()?;
        let DecodeOption { decode } = self.take()?;
        Ok(ImageOptions { overrides, decode })
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] if an option is left that nobody knows.
    pub(crate) fn finish(self) -> Result<()> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) if self.known.is_empty() => {
                Err(Error::option(name, "there are no options here"))
            }
            Some(name) => Err(Error::option(
                name,
                format!(
                    "there is no such option here; there are {}",
                    self.known.join(", ")
                ),
            )),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DecodeOption {
    decode: Decoding,
}

/// The options of a request that has no body.
impl FromRequestParts<AppState> for Options {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        let mut options = Self::default();
        options.add_query(parts.uri.query().unwrap_or_default())?;
        Ok(options)
    }
}

type JsonError = serde_json::Error;

impl<'de> Deserializer<'de> for &mut Options {
    type Error = JsonError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.known.extend(fields);
        let found = fields
            .iter()
            .filter_map(|&name| Some((name, Lenient(self.values.remove(name)?))));
        visitor.visit_map(MapDeserializer::new(found.collect::<Vec<_>>().into_iter()))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, JsonError> {
        Err(serde::de::Error::custom("options are read into a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A value that may be written as text, as in a query.
struct Lenient(Value);

impl IntoDeserializer<'_, JsonError> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Lenient {
    /// Text as the number or truth value that it reads as; anything else as it is.
    fn parsed(self) -> Value {
        match &self.0 {
            Value::String(text) => match text.trim_ascii() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                number => {
                    serde_json::from_str(number).map_or_else(|_| self.0.clone(), Value::Number)
                }
            },
            _ => self.0,
        }
    }

    /// A number or truth value as its text.
    fn text(self) -> Value {
        match self.0 {
            Value::Number(number) => Value::String(number.to_string()),
            Value::Bool(value) => Value::String(value.to_string()),
            other => other,
        }
    }
}

macro_rules! parsed {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.parsed().$method(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = JsonError;

    parsed! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text().deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text().deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.text().deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, strum::Display, strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum EncodingFormat {
    #[default]
    Float,
    Base64,
}
