//! Option values that are converted to the type that an operation expects.

use serde::{
    Deserializer,
    de::{IntoDeserializer, Visitor},
    forward_to_deserialize_any,
};
use serde_json::Value;

/// Error of the conversion.
pub(crate) type JsonError = serde_json::Error;

/// A value that may be given as text, as in a query.
pub(crate) struct Lenient(pub(crate) Value);

impl IntoDeserializer<'_, JsonError> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Lenient {
    /// Turns text into the number or boolean that it spells. Leaves anything else unchanged.
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

    /// Turns a number or boolean into its text.
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
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32
        deserialize_f64
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
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_parsed_as_numbers_and_booleans() {
        let rows = [
            (json!("true"), json!(true)),
            (json!(" false "), json!(false)),
            (json!("12"), json!(12)),
            (json!("-0.5"), json!(-0.5)),
            (json!("1e3"), json!(1000.0)),
            (json!("cls"), json!("cls")),
            (json!("NaN"), json!("NaN")),
            (json!(""), json!("")),
            (json!(7), json!(7)),
            (json!(null), json!(null)),
        ];
        for (value, expected) in rows {
            assert_eq!(Lenient(value.clone()).parsed(), expected, "{value}");
        }
    }

    #[test]
    fn numbers_and_booleans_are_accepted_as_text() {
        assert_eq!(Lenient(json!(12)).text(), json!("12"));
        assert_eq!(Lenient(json!(true)).text(), json!("true"));
        assert_eq!(Lenient(json!(null)).text(), json!(null));
    }
}
