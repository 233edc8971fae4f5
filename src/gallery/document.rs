//! Documents that a store keeps in addition to galleries: trained probes and PCA bases.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BasisName, ProbeName};
use crate::error::{Error, Kind, Result};

/// A store of documents. Writes are as durable as those of [`super::GalleryStore`].
#[async_trait]
pub trait DocumentStore {
    /// Stores a document, or replaces it.
    async fn put_document(&self, key: DocumentKey<'_>, document: Bytes) -> Result<()>;

    /// Reads a document.
    async fn document(&self, key: DocumentKey<'_>) -> Result<Option<Bytes>>;

    /// Returns the names of all documents of a kind, sorted.
    async fn documents(&self, kind: DocumentKind) -> Result<Vec<String>>;

    /// Deletes a document, and returns whether it existed.
    async fn remove_document(&self, key: DocumentKey<'_>) -> Result<bool>;

    /// Reads a document, or returns [`DocumentKey::missing`].
    async fn require_document(&self, key: DocumentKey<'_>) -> Result<Bytes> {
        self.document(key).await?.ok_or_else(|| key.missing())
    }
}

/// Kind of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum DocumentKind {
    /// A trained linear probe.
    Probe,
    /// A PCA basis.
    Basis,
}

/// Kind and name of a document. Made of a [`ProbeName`] or a [`BasisName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentKey<'a> {
    kind: DocumentKind,
    name: &'a str,
}

impl<'a> DocumentKey<'a> {
    /// Returns the kind.
    pub fn kind(self) -> DocumentKind {
        self.kind
    }

    /// Returns the name.
    pub fn name(self) -> &'a str {
        self.name
    }

    /// Returns the [`Kind::NotFound`] error for a document that does not exist.
    pub fn missing(self) -> Error {
        Error::new(Kind::NotFound, format!("there is no {self}"))
    }
}

impl fmt::Display for DocumentKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

impl<'a> From<&'a ProbeName> for DocumentKey<'a> {
    fn from(name: &'a ProbeName) -> Self {
        Self {
            kind: DocumentKind::Probe,
            name: name.as_str(),
        }
    }
}

impl<'a> From<&'a BasisName> for DocumentKey<'a> {
    fn from(name: &'a BasisName) -> Self {
        Self {
            kind: DocumentKind::Basis,
            name: name.as_str(),
        }
    }
}
