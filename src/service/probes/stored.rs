//! Format of a probe in the store.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, ResultExt},
    features::{pool::Pooling, probe::Probe},
    gallery::{Binding, GalleryName, Label},
    names::option_enum,
};

/// A trained probe, and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredProbe {
    /// Classes and weights.
    pub probe: Probe,
    /// Origin of the probe.
    pub about: Origin,
}

/// Origin of a probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Gallery whose items were the examples.
    pub gallery: GalleryName,
    /// Features that the probe takes.
    pub features: ProbeFeatures,
    /// Binding of that gallery. Images to classify must be prepared in the same way.
    pub binding: Binding,
    /// Number of items that were left out because they have no label.
    pub unlabelled: u64,
    /// Number of items that were left out because they were stored as vectors, without features.
    pub without_features: u64,
    /// Time of the training, in milliseconds since 1970.
    pub trained_ms: u64,
}

option_enum! {
    /// Features of an image that a probe takes.
    #[derive(Default)]
    pub enum ProbeFeatures {
        /// CLS, then the mean of the patch tokens, as in DINOv2's one-layer head.
        #[default]
        ClsMean,
        /// CLS alone.
        Cls,
    }
}

impl ProbeFeatures {
    /// Returns the width of the features for tokens of width `dim`.
    pub fn width(self, dim: usize) -> usize {
        self.pooling().dim(dim)
    }

    /// Returns the way from the tokens to the features.
    pub fn pooling(self) -> Pooling {
        match self {
            Self::ClsMean => Pooling::ClsMean,
            Self::Cls => Pooling::Cls,
        }
    }
}

/// Name of [`Origin`] in the metadata.
const ORIGIN: &str = "origin";

impl StoredProbe {
    /// Encodes the probe as a safetensors file: weights and biases, and the rest as metadata.
    pub(super) fn encode(&self) -> Result<Bytes> {
        let about = serde_json::to_string(&self.about).internal("describing a probe")?;
        let metadata = HashMap::from([(ORIGIN.to_owned(), about)]);
        Ok(self.probe.to_safetensors(metadata)?.into())
    }

    /// Decodes the file of [`StoredProbe::encode`].
    pub(super) fn decode(document: &[u8]) -> Result<Self> {
        let (probe, metadata) = Probe::from_safetensors(document)?;
        let about = metadata.get(ORIGIN).map(String::as_str).unwrap_or_default();
        let damaged = |damage: &dyn std::fmt::Display| {
            Error::damaged(format!("the origin of a stored probe is damaged: {damage}"))
        };
        let about: Origin = serde_json::from_str(about).map_err(|error| damaged(&error))?;
        let binding = &about.binding;
        binding.check_possible().map_err(|error| damaged(&error))?;
        let token_width = binding.features_width() / 2;
        if probe.width() != about.features.width(token_width) {
            return Err(damaged(
                &"the width of its features is not that of its weights",
            ));
        }
        for class in &probe.classes {
            Label::new(class).map_err(|error| damaged(&error))?;
        }
        Ok(Self { probe, about })
    }
}
