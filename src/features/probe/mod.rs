//! Linear probes: softmax regression on features that do not change. The caller chooses the
//! features.

mod examples;
mod minimum;
mod softmax;
mod training;

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use self::minimum::dot;
pub use self::{
    examples::Examples,
    training::{Progress, Stage, TrainingOptions, train},
};
use crate::error::{Error, Result};

/// A trained probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Labels of the classes, sorted.
    pub classes: Vec<String>,
    /// Weights, `[classes, width]`, row by row.
    pub weights: Vec<f32>,
    /// Biases, `[classes]`.
    pub biases: Vec<f32>,
    /// Strength of the penalty in training.
    pub l2: f64,
    /// Number of examples that the probe was trained on.
    pub examples: usize,
    /// Share of the examples that were classified correctly while they were held out.
    pub accuracy: f64,
    /// Whether the training converged.
    pub converged: bool,
}

/// Metadata of a probe's file.
#[derive(Serialize, Deserialize)]
struct Header {
    classes: Vec<String>,
    l2: f64,
    examples: usize,
    accuracy: f64,
    converged: bool,
}

/// Key of the [`Header`] in the metadata.
const HEADER: &str = "probe";

impl Probe {
    /// Returns the width of the features that the probe takes.
    pub fn width(&self) -> usize {
        self.weights.len() / self.classes.len().max(1)
    }

    /// Computes the probability of each class for features `[width]`. The probabilities sum to 1.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] for features of another width.
    pub fn probabilities(&self, features: &[f32]) -> Result<Vec<f32>> {
        let width = self.width();
        if features.len() != width {
            let detail = format!("it takes features of width {width}, not {}", features.len());
            return Err(Error::option("probe", detail));
        }
        let features: Vec<f64> = features.iter().map(|&value| f64::from(value)).collect();
        let mut logits = Vec::with_capacity(self.biases.len());
        for (weights, &bias) in self.weights.chunks_exact(width).zip(&self.biases) {
            let weights: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
            logits.push(f64::from(bias) + dot(&weights, &features));
        }
        softmax::softmax(&mut logits);
        Ok(logits.into_iter().map(|share| share as f32).collect())
    }

    /// Encodes a safetensors file with `weight` `[classes, width]` and `bias` `[classes]`, the
    /// names of a linear layer in PyTorch, and the caller's `metadata`.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub fn to_safetensors(&self, mut metadata: HashMap<String, String>) -> Result<Vec<u8>> {
        let Self {
            ref classes,
            l2,
            examples,
            accuracy,
            converged,
            ..
        } = *self;
        let header = Header {
            classes: classes.clone(),
            l2,
            examples,
            accuracy,
            converged,
        };
        let internal =
            |error: &dyn std::fmt::Display| Error::internal(format!("writing a probe: {error}"));
        metadata.insert(
            HEADER.to_owned(),
            serde_json::to_string(&header).map_err(|error| internal(&error))?,
        );
        let weights = little_endian(&self.weights);
        let biases = little_endian(&self.biases);
        let view = |shape, data| {
            TensorView::new(Dtype::F32, shape, data).map_err(|error| internal(&error))
        };
        let tensors = [
            ("weight", view(vec![classes.len(), self.width()], &weights)?),
            ("bias", view(vec![classes.len()], &biases)?),
        ];
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| internal(&error))
    }

    /// Reads a file of [`Probe::to_safetensors`], and returns the caller's metadata, too.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if the file is not a probe.
    pub fn from_safetensors(file: &[u8]) -> Result<(Self, HashMap<String, String>)> {
        let damaged =
            |what: &dyn std::fmt::Display| Error::artifact(format!("this is not a probe: {what}"));
        let (_, header) = SafeTensors::read_metadata(file).map_err(|error| damaged(&error))?;
        let mut metadata = header.metadata().clone().unwrap_or_default();
        let header = metadata
            .remove(HEADER)
            .ok_or_else(|| damaged(&"it has no header"))?;
        let header: Header = serde_json::from_str(&header).map_err(|error| damaged(&error))?;
        let Header {
            classes,
            l2,
            examples,
            accuracy,
            converged,
        } = header;
        let tensors = SafeTensors::deserialize(file).map_err(|error| damaged(&error))?;
        let floats = |name: &str| {
            let tensor = tensors.tensor(name).map_err(|error| damaged(&error))?;
            if tensor.dtype() != Dtype::F32 {
                return Err(damaged(&format_args!("`{name}` is not f32")));
            }
            let (values, _) = tensor.data().as_chunks::<4>();
            let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes));
            Ok(values.collect::<Vec<f32>>())
        };
        let weights = floats("weight")?;
        let biases = floats("bias")?;
        let count = classes.len();
        if count < 2 || biases.len() != count || weights.is_empty() || weights.len() % count != 0 {
            return Err(damaged(&"the shapes of its tensors do not fit its classes"));
        }
        Ok((
            Self {
                classes,
                weights,
                biases,
                l2,
                examples,
                accuracy,
                converged,
            },
            metadata,
        ))
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
