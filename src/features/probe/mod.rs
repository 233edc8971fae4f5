//! Linear probes: softmax regression on features that do not change. The caller chooses the
//! features.

mod examples;
mod minimum;
mod softmax;
mod training;

use std::collections::HashMap;

use ndarray::{Array2, ArrayView1, ArrayView2};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use self::minimum::dot;
pub use self::{
    examples::Examples,
    training::{TrainingOptions, train},
};
use crate::error::{Error, Result, ResultExt};

/// A trained probe. The metadata of its file hold all fields but the tensors, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Labels of the classes, sorted.
    pub classes: Vec<String>,
    /// Weights, `[classes, width]`, row by row.
    #[serde(skip)]
    pub weights: Vec<f32>,
    /// Biases, `[classes]`.
    #[serde(skip)]
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

/// Key of the probe's JSON in the metadata.
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

    /// Computes the logits of features `[n, width]`: `[n, classes]`.
    ///
    /// # Panics
    /// If the features have another width.
    pub fn logits(&self, features: ArrayView2<'_, f32>) -> Array2<f32> {
        let shape = (self.classes.len(), self.width());
        let weights = ArrayView2::from_shape(shape, &self.weights);
        let weights = weights.expect("a row for each class");
        features.dot(&weights.t()) + ArrayView1::from(&self.biases)
    }

    /// Encodes a safetensors file with `weight` `[classes, width]` and `bias` `[classes]`, the
    /// names of a linear layer in PyTorch, and the caller's `metadata`.
    pub fn to_safetensors(&self, mut metadata: HashMap<String, String>) -> Result<Vec<u8>> {
        const ACTION: &str = "writing a probe";
        let header = serde_json::to_string(self).internal(ACTION)?;
        metadata.insert(HEADER.to_owned(), header);
        let classes = self.classes.len();
        let weights = little_endian(&self.weights);
        let biases = little_endian(&self.biases);
        let view = |shape, data| TensorView::new(Dtype::F32, shape, data).internal(ACTION);
        let tensors = [
            ("weight", view(vec![classes, self.width()], &weights)?),
            ("bias", view(vec![classes], &biases)?),
        ];
        safetensors::serialize(tensors, Some(metadata)).internal(ACTION)
    }

    /// Reads a file of [`Probe::to_safetensors`], and returns the caller's metadata, too.
    ///
    /// # Errors
    /// [`crate::error::Kind::Damaged`] if the file is not a probe.
    pub fn from_safetensors(file: &[u8]) -> Result<(Self, HashMap<String, String>)> {
        let (_, header) = SafeTensors::read_metadata(file).map_err(damaged)?;
        let mut metadata = header.metadata().clone().unwrap_or_default();
        let header = metadata.remove(HEADER);
        let header = header.ok_or_else(|| damaged("it has no header"))?;
        let mut probe: Self = serde_json::from_str(&header).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(file).map_err(damaged)?;
        let floats = |name: &str| {
            let tensor = tensors.tensor(name).map_err(damaged)?;
            if tensor.dtype() != Dtype::F32 {
                return Err(damaged(format_args!("`{name}` is not f32")));
            }
            let (values, _) = tensor.data().as_chunks::<4>();
            let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes));
            Ok((tensor.shape().to_vec(), values.collect::<Vec<f32>>()))
        };
        let (shape, weights) = floats("weight")?;
        probe.weights = weights;
        probe.biases = floats("bias")?.1;
        let count = probe.classes.len();
        let weights = probe.weights.len();
        let has_rows = weights > 0 && shape.len() == 2 && shape[0] == count;
        if count < 2 || probe.biases.len() != count || !has_rows {
            return Err(damaged("the shapes of its tensors do not fit its classes"));
        }
        let mut values = probe.weights.iter().chain(&probe.biases);
        if !values.all(|value| value.is_finite()) {
            return Err(damaged("a weight is not finite"));
        }
        if !probe.classes.is_sorted_by(|a, b| a < b) {
            return Err(damaged("its classes are not sorted, or one occurs twice"));
        }
        Ok((probe, metadata))
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("this is not a probe: {what}"))
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().copied().flat_map(f32::to_le_bytes).collect()
}
