//! Format of a bank in the store: a small description, which is read for each request, and the
//! features, which are kept in memory.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::options::BankOptions;
use crate::{
    error::{Error, Result, ResultExt},
    features::anomaly::{Bank, document},
    gallery::BankName,
    model::{Architecture, ModelId},
    vision::Preprocessing,
};

/// Description of a bank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BankInfo {
    /// Model of the features.
    #[serde(flatten)]
    pub model: ModelId,
    /// Preprocessing of its images, and of those that it scores.
    #[serde(flatten)]
    pub preprocessing: Preprocessing,
    /// How it was made.
    #[serde(flatten)]
    pub options: BankOptions,
    /// Number of good photographs.
    pub images: usize,
    /// Number of their patches that were learned.
    pub patches: usize,
    /// Number of patches that others are compared with.
    pub entries: usize,
    /// Score above which an image is anomalous; `None` for a bank of one photograph.
    pub threshold: Option<f32>,
    /// Time at which it was made, in milliseconds since 1970.
    pub trained_ms: u64,
}

impl BankInfo {
    /// Encodes a bank with its description as one safetensors file.
    pub fn encode(&self, bank: &Bank) -> Result<Bytes> {
        let about = serde_json::to_string(self).internal("describing a bank")?;
        Ok(document::encode(bank, about)?.into())
    }

    /// Decodes a file of [`Self::encode`].
    ///
    /// # Errors
    /// [`crate::error::Kind::Damaged`] if the file is not a bank.
    pub fn decode(file: &[u8]) -> Result<(Bank, Self)> {
        let (bank, about) = document::decode(file)?;
        let info: Self = serde_json::from_str(&about).map_err(|error| {
            Error::damaged(format!("the description of the bank is damaged: {error}"))
        })?;
        info.check()?;
        Ok((bank, info))
    }

    /// Rejects a description that no bank has.
    fn check(&self) -> Result<()> {
        let size = self.preprocessing.size;
        if (1..=Architecture::MAX_SIZE).contains(&size) {
            return Ok(());
        }
        let detail = format!("the description of the bank is damaged: `size` is {size}");
        Err(Error::damaged(detail))
    }
}

/// A stored description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredInfo {
    #[serde(flatten)]
    pub(super) info: BankInfo,
    /// Hash of the features.
    pub(super) version: String,
}

impl StoredInfo {
    /// Encodes a bank: its description, and its features.
    pub(super) fn encode(info: BankInfo, bank: &Bank) -> Result<(Self, Bytes)> {
        let features = info.encode(bank)?;
        let version = crate::hex::encode(&Sha256::digest(&features)[..16]);
        Ok((Self { info, version }, features))
    }

    pub(super) fn to_bytes(&self) -> Result<Bytes> {
        let text = serde_json::to_vec(self).internal("describing a bank")?;
        Ok(text.into())
    }

    pub(super) fn of_bytes(name: &BankName, bytes: &[u8]) -> Result<Self> {
        let damaged = |damage: &dyn std::fmt::Display| {
            let detail = format!("the description of the bank `{name}` is damaged: {damage}");
            Error::damaged(detail)
        };
        let stored: Self = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        stored.info.check().map_err(|error| damaged(&error))?;
        Ok(stored)
    }

    /// Returns the name of the document with the features.
    pub(super) fn features_name(&self, name: &BankName) -> String {
        format!("{name}/{}", self.version)
    }
}
