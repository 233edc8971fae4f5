//! Documents that a store keeps in addition to galleries: what is trained, PCA bases, and what
//! belongs to one gallery: the report of its audit, and its map.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BankName, BasisName, GalleryName, ProbeName, SegmenterName};
use crate::error::{Error, Kind, Result};

/// A store of documents. Writes are as durable as those of [`super::GalleryStore`].
#[async_trait]
pub trait DocumentStore {
    /// Stores a document, or replaces it.
    async fn put_document(&self, key: DocumentKey<'_>, document: Bytes) -> Result<()>;

    /// Replaces a document that is still the one that was read `before`, and returns whether it
    /// was. If several servers change a document at the same time, no change is lost.
    async fn replace_document(
        &self,
        key: DocumentKey<'_>,
        before: &Bytes,
        document: Bytes,
    ) -> Result<bool>;

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
    /// The description of an anomaly bank.
    Bank,
    /// The features of an anomaly bank, whose name is that of the bank, `/` and a version.
    BankFeatures,
    /// A trained segmenter.
    Segmenter,
    /// The report of the audit of a gallery, whose name it has.
    Audit,
    /// The map of a gallery, whose name it has.
    Map,
}

/// Kind and name of a document. Made of the name of what is stored, such as a [`ProbeName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentKey<'a> {
    kind: DocumentKind,
    name: &'a str,
}

impl<'a> DocumentKey<'a> {
    /// Returns the key of the features of a bank.
    pub fn of_bank_features(name: &'a str) -> Self {
        Self {
            kind: DocumentKind::BankFeatures,
            name,
        }
    }

    /// Returns the key of the audit of a gallery.
    pub fn of_audit(gallery: &'a GalleryName) -> Self {
        Self {
            kind: DocumentKind::Audit,
            name: gallery.as_str(),
        }
    }

    /// Returns the key of the map of a gallery.
    pub fn of_map(gallery: &'a GalleryName) -> Self {
        Self {
            kind: DocumentKind::Map,
            name: gallery.as_str(),
        }
    }

    /// Returns the keys of the documents that are renamed and deleted with their gallery.
    pub fn of_gallery(gallery: &'a GalleryName) -> [Self; 2] {
        [Self::of_audit(gallery), Self::of_map(gallery)]
    }

    /// Returns the kind.
    pub fn kind(self) -> DocumentKind {
        self.kind
    }

    /// Returns the name.
    pub fn name(self) -> &'a str {
        self.name
    }

    /// Returns the path of the resource.
    pub fn path(self) -> String {
        let resource = match self.kind {
            DocumentKind::Audit | DocumentKind::Map => {
                return format!("/v1/galleries/{}/{}", self.name, self.kind);
            }
            DocumentKind::Probe => "probes",
            DocumentKind::Basis => "bases",
            DocumentKind::Bank | DocumentKind::BankFeatures => "anomaly",
            DocumentKind::Segmenter => "segmenters",
        };
        format!("/v1/{resource}/{}", self.name)
    }

    /// Returns a key that owns its name.
    pub fn to_owned(self) -> DocumentName {
        DocumentName {
            kind: self.kind,
            name: self.name.to_owned(),
        }
    }

    /// Returns the [`Kind::NotFound`] error for a document that does not exist.
    pub fn missing(self) -> Error {
        Error::new(Kind::NotFound, format!("there is no {self}"))
    }
}

impl fmt::Display for DocumentKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            kind @ (DocumentKind::Audit | DocumentKind::Map) => {
                write!(f, "{kind} of the gallery `{}`", self.name)
            }
            kind => write!(f, "{kind} `{}`", self.name),
        }
    }
}

/// A [`DocumentKey`] that owns its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentName {
    kind: DocumentKind,
    name: String,
}

impl DocumentName {
    /// Returns the key.
    pub fn key(&self) -> DocumentKey<'_> {
        DocumentKey {
            kind: self.kind,
            name: &self.name,
        }
    }
}

/// Makes keys of the names of a kind.
macro_rules! keys {
    ($($name:ty => $kind:ident),* $(,)?) => {$(
        impl<'a> From<&'a $name> for DocumentKey<'a> {
            fn from(name: &'a $name) -> Self {
                Self {
                    kind: DocumentKind::$kind,
                    name: name.as_str(),
                }
            }
        }
    )*};
}

keys! {
    ProbeName => Probe,
    BasisName => Basis,
    BankName => Bank,
    SegmenterName => Segmenter,
}
