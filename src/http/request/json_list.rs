//! Lists in JSON whose elements are handled one by one, so that no list of them is ever built.

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// Reads a list. The outer error is one of an element, the inner one of JSON syntax.
pub(super) fn read_list<'de>(
    json: &'de str,
    of: &'static str,
    each: impl FnMut(&'de RawValue, usize) -> Result<()>,
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
pub(super) struct List<'a, F> {
    /// What the elements are, for error messages.
    pub(super) of: &'static str,
    pub(super) each: F,
    pub(super) failure: &'a mut Option<Error>,
}

impl<'de, F: FnMut(&'de RawValue, usize) -> Result<()>> DeserializeSeed<'de> for List<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&'de RawValue, usize) -> Result<()>> Visitor<'de> for List<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of {}", self.of)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut elements: S) -> Result<(), S::Error> {
        let mut index = 0;
        while let Some(value) = elements.next_element::<&'de RawValue>()? {
            if let Err(error) = (self.each)(value, index) {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("an element is invalid"));
            }
            index += 1;
        }
        Ok(())
    }
}
