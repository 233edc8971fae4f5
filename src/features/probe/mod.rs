//! Linear probes: softmax regression on features that stay as they are. Which features, the caller
//! knows.

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
    /// Labels, sorted.
    pub classes: Vec<String>,
    /// `[classes, width]`, row by row.
    pub weights: Vec<f32>,
    /// `[classes]`.
    pub biases: Vec<f32>,
    /// Strength of the penalty it was trained with.
    pub l2: f64,
    /// How many examples it was trained on.
    pub examples: usize,
    /// Share of them that were classified rightly while they were held out.
    pub accuracy: f64,
    /// Whether the training came to its end.
    pub converged: bool,
}

/// What a probe's file tells beside its tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    classes: Vec<String>,
    l2: f64,
    examples: usize,
    accuracy: f64,
    converged: bool,
}

/// The name under which [`Header`] stands among the metadata.
const HEADER: &str = "probe";

impl Probe {
    /// Width of the features that it takes.
    pub fn width(&self) -> usize {
        self.weights.len() / self.classes.len().max(1)
    }

    /// The probability of each class for features `[width]` as the model gives them. They sum to 1.
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
        let logit = |(weights, &bias): (&[f32], &f32)| {
            let weights: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
            f64::from(bias) + dot(&weights, &features)
        };
        let mut logits: Vec<f64> = self
            .weights
            .chunks_exact(width)
            .zip(&self.biases)
            .map(logit)
            .collect();
        softmax::softmax(&mut logits);
        Ok(logits.into_iter().map(|share| share as f32).collect())
    }

    /// A safetensors file with `weight` `[classes, width]` and `bias` `[classes]`, as PyTorch calls
    /// those of a linear layer, and further metadata of the caller's.
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
        let bytes = |values: &[f32]| {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let (weights, biases) = (bytes(&self.weights), bytes(&self.biases));
        let view = |shape, data| {
            TensorView::new(Dtype::F32, shape, data).map_err(|error| internal(&error))
        };
        let tensors = [
            ("weight", view(vec![classes.len(), self.width()], &weights)?),
            ("bias", view(vec![classes.len()], &biases)?),
        ];
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| internal(&error))
    }

    /// Reads what [`Probe::to_safetensors`] wrote, and gives the further metadata, too.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if it is something else.
    pub fn from_safetensors(file: &[u8]) -> Result<(Self, HashMap<String, String>)> {
        let damaged =
            |what: &dyn std::fmt::Display| Error::artifact(format!("this is not a probe: {what}"));
        let (_, about) = SafeTensors::read_metadata(file).map_err(|error| damaged(&error))?;
        let mut metadata = about.metadata().clone().unwrap_or_default();
        let header = metadata
            .remove(HEADER)
            .ok_or_else(|| damaged(&"it says nothing about one"))?;
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
            let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            Ok(tensor
                .data()
                .chunks_exact(4)
                .map(value)
                .collect::<Vec<f32>>())
        };
        let (weights, biases) = (floats("weight")?, floats("bias")?);
        let count = classes.len();
        if count < 2 || biases.len() != count || weights.is_empty() || weights.len() % count != 0 {
            return Err(damaged(&"its tensors have other shapes than its classes"));
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
