//! Format of a segmenter in the store.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, ResultExt},
    features::{mask::IGNORED, probe::Probe},
    model::{Architecture, ModelId},
    vision::Preprocessing,
};

/// A linear head on patch tokens, and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmenter {
    /// Weights; the names of its classes are numbers of three digits.
    pub probe: Probe,
    /// Classes, sorted.
    pub classes: Vec<u8>,
    /// Origin.
    pub info: SegmenterInfo,
}

/// Origin of a segmenter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmenterInfo {
    /// Model of the features.
    #[serde(flatten)]
    pub model: ModelId,
    /// Preprocessing of the images, and of those to segment.
    #[serde(flatten)]
    pub preprocessing: Preprocessing,
    /// Number of last blocks whose patch tokens are joined.
    pub layers: usize,
    /// Number of images.
    pub images: usize,
    /// Time of the training, in milliseconds since 1970.
    pub trained_ms: u64,
}

/// Name of [`SegmenterInfo`] in the metadata.
const ORIGIN: &str = "origin";

/// Returns the name of a class in the probe, by which classes are sorted.
pub(super) fn class_name(class: u8) -> String {
    format!("{class:03}")
}

impl Segmenter {
    pub(super) fn new(probe: Probe, info: SegmenterInfo) -> Result<Self> {
        let number = |name: &String| {
            let class = name.parse().ok().filter(|&class| class != IGNORED);
            class.filter(|&class| class_name(class) == *name)
        };
        let classes: Option<Vec<u8>> = probe.classes.iter().map(number).collect();
        let classes = classes.ok_or_else(|| damaged(&"a class is no number from 0 to 254"))?;
        Ok(Self {
            probe,
            classes,
            info,
        })
    }

    /// Encodes the segmenter as a safetensors file: weights and biases, and the rest as metadata.
    pub fn encode(&self) -> Result<Bytes> {
        let info = serde_json::to_string(&self.info).internal("describing a segmenter")?;
        let metadata = HashMap::from([(ORIGIN.to_owned(), info)]);
        Ok(self.probe.to_safetensors(metadata)?.into())
    }

    /// Decodes the file of [`Segmenter::encode`].
    ///
    /// # Errors
    /// [`crate::error::Kind::Damaged`] if the file is not a segmenter.
    pub fn decode(document: &[u8]) -> Result<Self> {
        let read = Probe::from_safetensors(document);
        let (probe, metadata) = read.map_err(|error| damaged(&error))?;
        let info = metadata.get(ORIGIN).map(String::as_str).unwrap_or_default();
        let info: SegmenterInfo = serde_json::from_str(info).map_err(|error| damaged(&error))?;
        let size = info.preprocessing.size;
        let has_layers = (1..=Architecture::MAX_LAYERS).contains(&info.layers);
        if !(1..=Architecture::MAX_SIZE).contains(&size) || !has_layers {
            return Err(damaged(&format_args!("`size` or `layers` is impossible")));
        }
        Self::new(probe, info)
    }
}

fn damaged(damage: &dyn std::fmt::Display) -> Error {
    Error::damaged(format!("this is not a segmenter: {damage}"))
}
