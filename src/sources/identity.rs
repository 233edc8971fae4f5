//! Whether a file has changed.

use std::{fs, path::Path, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Identity of a file's content: another size or version means that the file has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// Size of the file.
    pub bytes: u64,
    /// The time of the last change in nanoseconds since 1970, or the store's ETag.
    pub version: String,
}

impl Identity {
    /// Reads the identity of a file; `None` if it has none, such as a missing file.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self {
            bytes: metadata.len(),
            version: modified.as_nanos().to_string(),
        })
    }
}
