//! The form in which a probe lies in the store.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    features::{pool::Pooling, probe::Probe},
    gallery::{Binding, GalleryName},
};

/// A probe, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredProbe {
    /// The probe.
    pub probe: Probe,
    /// Where it comes from.
    pub about: Origin,
}

/// Where a probe comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The gallery that it learned from.
    pub gallery: GalleryName,
    /// What it takes.
    pub features: ProbeFeatures,
    /// How the features of that gallery were made; those of an image to be classified must be made
    /// alike.
    pub binding: Binding,
    /// Items that were left out because they have no label.
    pub unlabelled: u64,
    /// Items that were left out because they came as vectors, without the features of a probe.
    pub without_features: u64,
    /// When it was trained, in milliseconds since 1970.
    pub trained_ms: u64,
}

/// Which features of an image a probe takes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ProbeFeatures {
    /// CLS, then the mean of the patch tokens: what DINOv2's one-layer head takes.
    #[default]
    ClsMean,
    /// CLS alone.
    Cls,
}

impl ProbeFeatures {
    /// Width of the features, for tokens of width `dim`.
    pub fn width(self, dim: usize) -> usize {
        self.pooling().dim(dim)
    }

    /// How they are made of tokens.
    pub fn pooling(self) -> Pooling {
        match self {
            Self::ClsMean => Pooling::ClsMean,
            Self::Cls => Pooling::Cls,
        }
    }
}

/// The name under which [`Origin`] stands among the metadata.
const ORIGIN: &str = "origin";

impl StoredProbe {
    /// A safetensors file: weights and biases, and the rest as metadata.
    pub(super) fn encode(&self) -> Result<Bytes> {
        let about = serde_json::to_string(&self.about)
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(self
            .probe
            .to_safetensors(HashMap::from([(ORIGIN.to_owned(), about)]))?
            .into())
    }

    /// Reads what [`StoredProbe::encode`] wrote.
    pub(super) fn decode(document: &[u8]) -> Result<Self> {
        let (probe, metadata) = Probe::from_safetensors(document)?;
        let about = metadata.get(ORIGIN).map(String::as_str).unwrap_or_default();
        let damaged = |error| {
            Error::artifact(format!(
                "a stored probe does not say where it comes from: {error}"
            ))
        };
        Ok(Self {
            probe,
            about: serde_json::from_str(about).map_err(damaged)?,
        })
    }
}
