//! Checked text: names, item ids and labels.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result, shortened},
    hex,
};

/// Defines a string type whose values passed a check, in code and in JSON alike.
macro_rules! checked_text {
    ($(#[$attribute:meta])* $name:ident, $check:expr) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// [`Kind::InvalidOption`] that says what is allowed.
            pub fn new(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text! {
    /// Name of a gallery: 1 to 64 of `a-z`, `0-9`, `-`, `_`, the first a letter or digit. Names
    /// that begin with `restoring--` are reserved.
    GalleryName, check_gallery_name
}

checked_text! {
    /// Name of a linear probe, by the rules of [`GalleryName`].
    ProbeName, check_name
}

checked_text! {
    /// Name of a PCA basis, by the rules of [`GalleryName`].
    BasisName, check_name
}

checked_text! {
    /// Name of an anomaly bank, by the rules of [`GalleryName`].
    BankName, check_name
}

checked_text! {
    /// Name of a segmenter, by the rules of [`GalleryName`].
    SegmenterName, check_name
}

checked_text! {
    /// Id of an item within its gallery: 1 to 512 bytes of UTF-8.
    ItemId, check_id
}

checked_text! {
    /// Class label of an item: 1 to 256 bytes of UTF-8 without NUL.
    Label, check_label
}

impl GalleryName {
    /// Name used when a request gives none.
    pub const DEFAULT: &str = "default";

    /// Prefix of the names of galleries that are being restored.
    pub(super) const STAGING_PREFIX: &str = "restoring--";

    /// Returns a name that a store holds, which may be reserved.
    pub(super) fn stored(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        check_name(&text)?;
        Ok(Self(text))
    }

    /// Returns whether the gallery is being restored, so that no client may see it.
    pub(super) fn is_staging(&self) -> bool {
        self.0.starts_with(Self::STAGING_PREFIX)
    }
}

impl Default for GalleryName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl ItemId {
    /// Maximum length of an id, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// Returns the SHA-256 of a file in hexadecimal digits: the id of an image that has no other.
    pub fn of_content(file: &[u8]) -> Self {
        Self(hex::encode(&Sha256::digest(file)))
    }

    /// Rejects an id that a new item may not have: `.` and `..`, which clients remove from paths,
    /// so that the item could be neither read nor deleted.
    pub fn of_new_item(self) -> Result<Self> {
        match self.as_str() {
            "." | ".." => {
                let detail = format_args!("{:?} cannot be part of a path; use another", self.0);
                Err(Error::option("id", detail))
            }
            _ => Ok(self),
        }
    }
}

impl Label {
    /// Maximum length of a label, in bytes.
    pub const MAX_BYTES: usize = 256;
}

/// Maximum length of a name, in bytes.
const MAX_NAME_BYTES: usize = 64;

fn check_name(name: &str) -> Result<()> {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_valid = name.bytes().next().is_some_and(is_alphanumeric)
        && name.len() <= MAX_NAME_BYTES
        && name
            .bytes()
            .all(|byte| is_alphanumeric(byte) || byte == b'-' || byte == b'_');
    if is_valid {
        return Ok(());
    }
    let name = shortened(name);
    let detail = format!(
        "{name:?} is no name; names have 1 to {MAX_NAME_BYTES} of a-z, 0-9, - and _, and begin \
         with a letter or digit"
    );
    Err(Error::new(Kind::InvalidOption, detail))
}

fn check_gallery_name(name: &str) -> Result<()> {
    check_name(name)?;
    if !name.starts_with(GalleryName::STAGING_PREFIX) {
        return Ok(());
    }
    let detail = format!(
        "{name:?} is reserved: names that begin with {} belong to restores; use another name",
        GalleryName::STAGING_PREFIX
    );
    Err(Error::new(Kind::InvalidOption, detail))
}

fn check_id(id: &str) -> Result<()> {
    let max = ItemId::MAX_BYTES;
    let wrong = match id.len() {
        0 => "empty".to_owned(),
        length if length > max => format!("{length} bytes long"),
        _ => return Ok(()),
    };
    Err(Error::option(
        "id",
        format!("{wrong}; an id has 1 to {max} bytes"),
    ))
}

fn check_label(label: &str) -> Result<()> {
    let max = Label::MAX_BYTES;
    let wrong = match label.len() {
        0 => "empty; leave it out for an item without a label".to_owned(),
        length if length > max => {
            format!("{length} bytes long; a label has 1 to {max} bytes")
        }
        _ if label.contains('\0') => "holds a NUL character".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::option("label", wrong))
}
