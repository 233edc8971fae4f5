//! Errors of AVIF files.

use crate::error::{Error, Kind};

/// Makes the error of a file that cannot be decoded.
pub(super) fn damaged(reason: impl std::fmt::Display) -> Error {
    let detail = format!("the AVIF cannot be decoded: {reason}");
    Error::new(Kind::UndecodableImage, detail)
}
