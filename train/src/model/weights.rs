//! Imports published weights, and exports weights in Hugging Face's layout.

use std::{borrow::Cow, collections::BTreeMap};

use dinoserve::{
    error::{Error, Result},
    onnx::weights::{Weights, hugging_face},
};
use safetensors::{Dtype, View};

use super::{Backbone, load, parameters};

/// A tensor in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

/// Loads the weights of a file into a backbone, in any of the layouts that [`Weights`] reads.
///
/// # Errors
/// [`dinoserve::error::Kind::Artifact`] if a tensor is missing or has another shape than the
/// description says.
pub fn initialize_from(backbone: Backbone, weights: &Weights) -> Result<Backbone> {
    load(backbone, |name, shape| {
        let read = weights.read(name, shape);
        // Files for inference leave out the mask token, which is not used before it is trained.
        if name == "mask_token" {
            read.or_else(|_| Ok(vec![0.0; shape.iter().product()]))
        } else {
            read
        }
    })
}

/// Returns the parameters of a backbone under Hugging Face's names, which split queries, keys and
/// values into three tensors.
pub fn to_hugging_face(backbone: &Backbone) -> Result<BTreeMap<String, HostTensor>> {
    let mut tensors = BTreeMap::new();
    for parameter in parameters(backbone) {
        let name = parameter.name;
        let mut shape = parameter.shape;
        let values: Vec<f32> = parameter
            .values
            .into_data()
            .try_into_vec_as()
            .map_err(|error| Error::internal(format!("{name}: {error}")))?;
        let parts = hugging_face(&name)
            .ok_or_else(|| Error::internal(format!("{name} has no name in this layout")))?;
        shape[0] /= parts.len();
        let length = values.len() / parts.len();
        for (part, values) in parts.into_iter().zip(values.chunks(length)) {
            let tensor = HostTensor {
                shape: shape.clone(),
                values: values.to_vec(),
            };
            tensors.insert(part, tensor);
        }
    }
    Ok(tensors)
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn data_len(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}
