//! Which model made a feature.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Hash of a model's weights, precision and graph: 64 hexadecimal digits. Features are comparable
/// only if their fingerprints are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Returns all digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first 12 characters, which is enough to distinguish models in a message.
    pub fn short(&self) -> &str {
        self.0
            .char_indices()
            .nth(12)
            .map_or(&self.0, |(end, _)| &self.0[..end])
    }
}

impl From<String> for Fingerprint {
    fn from(digits: String) -> Self {
        Self(digits)
    }
}

impl From<&str> for Fingerprint {
    fn from(digits: &str) -> Self {
        Self(digits.to_owned())
    }
}

impl PartialEq<str> for Fingerprint {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model by its name, for people, and its fingerprint, which decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// Name, such as `dinov2-small`.
    #[serde(rename = "model")]
    pub name: String,
    /// Identity of its features.
    pub fingerprint: Fingerprint,
}

impl ModelId {
    /// Checks that features of `other` may be compared with features of this model.
    ///
    /// `holder` begins the message: who has features of this model, with a verb, such as "the
    /// gallery `default` holds". `advice` completes "serve that model, or …".
    ///
    /// # Errors
    /// [`Kind::Conflict`] that names both models.
    pub fn require(
        &self,
        other: &Self,
        holder: impl fmt::Display,
        advice: impl fmt::Display,
    ) -> Result<()> {
        if self.fingerprint == other.fingerprint {
            return Ok(());
        }
        let detail = format!(
            "{holder} features of {} (fingerprint {}), and these are of {} ({}); \
             serve that model, or {advice}",
            self.name,
            self.fingerprint.short(),
            other.name,
            other.fingerprint.short()
        );
        Err(Error::new(Kind::Conflict, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_fingerprint_ends_at_a_character() {
        for (all, short) in [
            ("0123456789abcdef", "0123456789ab"),
            ("abc", "abc"),
            ("ééééééééééééé", "éééééééééééé"),
        ] {
            assert_eq!(Fingerprint::from(all).short(), short);
        }
    }

    #[test]
    fn a_model_id_is_two_fields_in_json() {
        let id = ModelId {
            name: "tiny".to_owned(),
            fingerprint: "ab".into(),
        };
        let json = serde_json::to_string(&id).expect("plain strings");
        assert_eq!(json, r#"{"model":"tiny","fingerprint":"ab"}"#);
    }
}
