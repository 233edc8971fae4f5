//! What a store says when it refuses.

use object_store::Error as StoreError;

use crate::error::{Error, Kind};

/// Describes a failure. What a retry may change is [`Kind::Download`].
pub(super) fn failed(action: &str, error: StoreError) -> Error {
    let (kind, reason) = match &error {
        StoreError::NotFound { .. } => (Kind::NotFound, "there is no such object or bucket"),
        StoreError::PermissionDenied { .. } => (Kind::Io, "permission denied"),
        StoreError::Unauthenticated { .. } => (Kind::Io, "the credentials are not accepted"),
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            (Kind::InvalidOption, "the store cannot do this")
        }
        _ => (Kind::Download, ""),
    };
    let detail = match reason {
        "" => format!("{action}: {}", shortened(&error)),
        reason => format!("{action}: {reason}"),
    };
    match reason {
        "" => Error::new(kind, detail).with_source(error),
        // What the store says has nothing more.
        _ => Error::new(kind, detail),
    }
}

/// Returns the first characters of a message, which can hold a whole answer of the store.
pub(super) fn shortened(error: &dyn std::error::Error) -> String {
    let text = error.to_string().replace('\n', " ");
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
