//! The error of image files that cannot be decoded.

use std::fmt::Display;

use crate::error::{Error, Kind};

/// Makes the error of a file of a format, with the reason.
pub(super) fn undecodable(format: impl Display, reason: impl Display) -> Error {
    let detail = format!("the {format} cannot be decoded: {reason}");
    Error::new(Kind::UndecodableImage, detail)
}
