//! Weights from and for the rest of the world: published files to begin with, Hugging Face's layout
//! to serve.

use std::collections::BTreeMap;

use dinoserve::{
    error::{Error, Result},
    onnx::weights::{Weights, hugging_face},
};

use super::{Backbone, flatten, load, names_of};

/// A tensor on the host: its shape and its values, row-major.
pub type HostTensor = (Vec<usize>, Vec<f32>);

/// A backbone with the weights of a file, under whatever names it has them.
///
/// # Errors
/// [`dinoserve::error::Kind::Artifact`] if a tensor is missing or has another shape than the
/// description says.
pub fn initialize_from(backbone: Backbone, weights: &Weights) -> Result<Backbone> {
    load(backbone, |name, shape| {
        let read = weights.read(name, shape);
        // Files for inference leave it out; nothing looks at it before it is trained.
        if name == "mask_token" {
            read.or_else(|_| Ok(vec![0.0; shape.iter().product()]))
        } else {
            read
        }
    })
}

/// The parameters of a backbone under Hugging Face's names, in which queries, keys and values are
/// three tensors.
///
/// # Errors
/// [`dinoserve::error::Kind::Internal`] if a device does not give its values.
pub fn to_hugging_face(backbone: &Backbone) -> Result<BTreeMap<String, HostTensor>> {
    let shapes: BTreeMap<String, Vec<usize>> = names_of(backbone).into_iter().collect();
    let mut tensors = BTreeMap::new();
    for (name, tensor) in flatten(backbone) {
        let values: Vec<f32> = tensor
            .into_data()
            .try_into_vec_as()
            .map_err(|error| Error::internal(format!("{name}: {error}")))?;
        let parts = hugging_face(&name);
        let mut shape = shapes[&name].clone();
        shape[0] /= parts.len();
        let length = values.len() / parts.len();
        for (part, values) in parts.into_iter().zip(values.chunks(length)) {
            tensors.insert(part, (shape.clone(), values.to_vec()));
        }
    }
    Ok(tensors)
}
