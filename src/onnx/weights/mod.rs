//! Published weights of any file format, under the hub's tensor names.
//!
//! A reader turns a file into a [`TensorMap`] without copying the data. [`Weights`] detects which
//! layout the names follow, and reads tensors by the hub's names as f32 values of the expected
//! shape.

mod layout;
mod onnx_export;
mod safetensors;
mod tensor;
mod torch;

use self::layout::Layout;
pub(crate) use self::tensor::transpose;
pub use self::{
    layout::hugging_face,
    onnx_export::read_onnx_export,
    safetensors::read_safetensors,
    tensor::{Dtype, RawTensor, TensorMap},
    torch::read_torch,
};
use crate::{
    error::{Error, Result},
    model::ModelSpec,
};

/// Weights of a vision transformer under the hub's names.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: TensorMap,
    layout: Layout,
}

impl Weights {
    /// Detects which layout the names follow.
    pub fn new(tensors: TensorMap) -> Result<Self> {
        let layout = Layout::detect(&tensors)?;
        Ok(Self { tensors, layout })
    }

    /// Rejects weights that have more than the model: reading only a part of them would silently
    /// give wrong features.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        let has = |name: &str| {
            self.layout
                .parts(name)
                .is_some_and(|parts| parts.iter().all(|part| self.tensors.contains_key(part)))
        };
        let name = &spec.name;
        let architecture = &spec.architecture;
        let depth = architecture.depth;
        if architecture.registers == 0 && has("register_tokens") {
            return Err(Error::artifact(format!(
                "the weights have register tokens, and {name} has none; \
                 name a model with registers, such as dinov2-small-reg"
            )));
        }
        if has(&format!("blocks.{depth}.norm1.weight")) {
            return Err(Error::artifact(format!(
                "the weights have more blocks than the {depth} of {name}; name their model"
            )));
        }
        for (field, expected, tensor) in [
            (
                "layer_scale",
                architecture.layer_scale,
                "blocks.0.ls1.gamma",
            ),
            ("qkv_bias", architecture.qkv_bias, "blocks.0.attn.qkv.bias"),
        ] {
            if !expected && has(tensor) {
                return Err(Error::artifact(format!(
                    "the weights have {tensor}, and {name} says {field} = false; \
                     name their model, or correct its description"
                )));
            }
        }
        Ok(())
    }

    /// Reads the tensor with the hub's `name`, as f32 of exactly `shape`, row-major.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let missing = |name: &str| {
            Error::artifact(format!(
                "the weights have no tensor {name}; are they of this model's architecture?"
            ))
        };
        let names = self.layout.parts(name).ok_or_else(|| missing(name))?;
        let parts: Vec<&RawTensor> = names
            .iter()
            .map(|name| self.tensors.get(name).ok_or_else(|| missing(name)))
            .collect::<Result<_>>()?;
        // Checked before any value is read: another shape than the model's could have any size.
        if !join_shapes(&parts).is_some_and(|joined| same_shape(&joined, shape)) {
            let found: Vec<String> = parts
                .iter()
                .map(|part| format!("{:?}", part.shape))
                .collect();
            return Err(Error::artifact(format!(
                "tensor {} has shape {}, but this model needs {shape:?}",
                names.join(" + "),
                found.join(" + ")
            )));
        }
        Ok(parts.into_iter().flat_map(RawTensor::to_f32).collect())
    }
}

/// Returns the shape of tensors that are joined along their first axis; `None` if they do not fit
/// together.
fn join_shapes(parts: &[&RawTensor]) -> Option<Vec<usize>> {
    let (first, others) = parts.split_first()?;
    let mut joined = first.shape.clone();
    for part in others {
        if part.shape.get(1..)? != joined.get(1..)? {
            return None;
        }
        joined[0] = joined[0].checked_add(part.shape[0])?;
    }
    Some(joined)
}

/// Whether two shapes are equal apart from leading ones (`[1, 1, D]` and `[D]`).
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    fn trim(shape: &[usize]) -> impl Iterator<Item = &usize> {
        shape.iter().skip_while(|&&side| side == 1)
    }
    trim(a).eq(trim(b))
}
