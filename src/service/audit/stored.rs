//! Format of a report in the store.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{super::gallery_documents::GalleryDocument, report::AuditReport};
use crate::{
    error::{Error, Result, ResultExt},
    features::audit::AuditOptions,
    gallery::{DocumentKey, GalleryName},
};

/// The report of an audit, and how it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredAudit {
    /// Number of the gallery.
    pub(super) gallery: u64,
    /// Options of the audit.
    pub options: AuditOptions,
    /// Time of the audit, in milliseconds since 1970.
    pub made_ms: u64,
    /// What was found.
    pub report: AuditReport,
}

impl StoredAudit {
    /// Encodes the report as JSON.
    pub(super) fn encode(&self) -> Result<Bytes> {
        let document = serde_json::to_vec(self).internal("describing an audit")?;
        Ok(document.into())
    }
}

impl GalleryDocument for StoredAudit {
    fn key(gallery: &GalleryName) -> DocumentKey<'_> {
        DocumentKey::of_audit(gallery)
    }

    /// Decodes the JSON of [`StoredAudit::encode`].
    fn decode(document: &[u8]) -> Result<Self> {
        serde_json::from_slice(document).map_err(|error| {
            Error::damaged(format!("the report of a stored audit is damaged: {error}"))
        })
    }

    fn gallery(&self) -> u64 {
        self.gallery
    }
}
