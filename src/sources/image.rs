//! An image of a source.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

use super::{identity::Identity, place::Place, store::ObjectPlace};
use crate::error::{Error, Result};

/// What a source lists.
#[derive(Debug)]
pub enum Listed {
    /// An image, which may still turn out to be unreadable.
    Image(Box<SourceImage>),
    /// A folder, line or row without a valid image.
    Failed {
        /// Path, or place in a list.
        name: String,
        /// The reason.
        error: Error,
    },
    /// A file that is no image.
    Skipped {
        /// Path.
        name: String,
        /// Kind of the file, such as `.txt`.
        kind: String,
        /// What to do with such files, if that is known.
        advice: Option<&'static str>,
    },
}

impl Listed {
    /// Returns the name by which a shard is chosen.
    pub fn name(&self) -> &str {
        match self {
            Self::Image(image) => &image.id,
            Self::Failed { name, .. } | Self::Skipped { name, .. } => name,
        }
    }
}

/// An image of a source, before it is read.
#[derive(Debug, Clone)]
pub struct SourceImage {
    /// Path below the folder or prefix with `/` between its parts, the id that a list gives, or
    /// the name of a member of a tar file.
    pub id: String,
    /// Label that a list or a tar file gives, or the first of several parts of the path.
    pub label: Option<String>,
    /// JSON object that a list or a tar file gives.
    pub metadata: Option<Value>,
    /// Where it comes from, for messages: a path, an address, or a line of a list.
    pub origin: String,
    /// The line of the list that has this image.
    pub line: Option<String>,
    pub(super) content: Content,
}

/// The content of an image file.
#[derive(Debug, Clone)]
pub(super) enum Content {
    File(PathBuf),
    Object {
        place: ObjectPlace,
        /// Empty for objects of lists, which would take a request more.
        identity: Identity,
    },
    Bytes {
        bytes: Bytes,
        identity: Identity,
    },
}

impl SourceImage {
    /// A file, with the id and label of its path below a folder.
    pub(super) fn file(id: String, path: PathBuf) -> Self {
        Self {
            label: label_of(&id),
            id,
            metadata: None,
            origin: path.display().to_string(),
            line: None,
            content: Content::File(path),
        }
    }

    /// The only image of a source.
    pub(super) fn single(id: String, place: Place) -> Self {
        Self {
            line: None,
            ..Self::listed(id, place, String::new())
        }
    }

    /// An image at a place that a list names.
    pub(super) fn listed(id: String, place: Place, line: String) -> Self {
        Self {
            id,
            label: None,
            metadata: None,
            origin: place.to_string(),
            line: Some(line),
            content: match place {
                Place::Local(path) => Content::File(path),
                Place::Object(place) => Content::Object {
                    place,
                    identity: Identity::default(),
                },
            },
        }
    }

    /// An image that is in memory. `origin` says where it comes from.
    pub fn in_memory(id: String, bytes: Bytes, origin: String) -> Self {
        let identity = Identity {
            bytes: bytes.len() as u64,
            version: String::new(),
        };
        Self {
            id,
            label: None,
            metadata: None,
            origin,
            line: None,
            content: Content::Bytes { bytes, identity },
        }
    }

    /// Returns an error that names this image.
    pub fn about(&self, error: Error) -> Error {
        error.about(Path::new(&self.origin))
    }

    /// Returns the path of a local file.
    pub fn path(&self) -> Option<&Path> {
        match &self.content {
            Content::File(path) => Some(path),
            Content::Object { .. } | Content::Bytes { .. } => None,
        }
    }

    /// Returns the identity of the content; `None` if it is not known before reading.
    pub fn identity(&self) -> Option<Identity> {
        match &self.content {
            Content::File(path) => Identity::of(path),
            Content::Object { identity, .. } | Content::Bytes { identity, .. } => {
                Some(identity.clone())
            }
        }
    }

    /// Returns the size of the image's file in bytes, if it is known before reading.
    pub fn size(&self) -> Option<u64> {
        match &self.content {
            Content::Bytes { bytes, .. } => Some(bytes.len() as u64),
            Content::File(_) | Content::Object { .. } => {
                let identity = self.identity()?;
                (identity != Identity::default()).then_some(identity.bytes)
            }
        }
    }

    /// Reads the file.
    pub async fn read(&self) -> Result<Bytes> {
        match &self.content {
            Content::File(path) => match tokio::fs::read(path).await {
                Ok(file) => Ok(file.into()),
                Err(error) => Err(Error::io("reading", error)),
            },
            Content::Object { place, .. } => place.read().await,
            Content::Bytes { bytes, .. } => Ok(bytes.clone()),
        }
    }
}

/// Returns the first of several parts of an id: by convention, each class has its folder.
pub(super) fn label_of(id: &str) -> Option<String> {
    id.split_once('/').map(|(label, _)| label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_parts_is_the_label() {
        assert_eq!(label_of("cat/1.png").as_deref(), Some("cat"));
        assert_eq!(label_of("cat/more/1.png").as_deref(), Some("cat"));
        assert_eq!(label_of("1.png"), None);
    }
}
