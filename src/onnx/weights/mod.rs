//! Published weights, whatever file they come in, under the hub's tensor names.
//!
//! A reader turns a file into a [`TensorMap`] without copying the data; [`Weights`] finds out which
//! layout the names follow and answers requests for the hub's names with f32 values of the expected
//! shape.

mod layout;
mod onnx_export;
mod safetensors;
mod torch;

use std::collections::BTreeMap;

use bytes::Bytes;
use half::{bf16, f16};

use self::layout::Layout;
pub use self::{
    layout::hugging_face, onnx_export::read_onnx_export, safetensors::read_safetensors,
    torch::read_torch,
};
use crate::{
    error::{Error, Result},
    model::{Architecture, ModelSpec},
};

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor as it lies in its file, little-endian.
#[derive(Debug, Clone)]
pub struct RawTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Shape as PyTorch has it.
    pub shape: Vec<usize>,
    /// The bytes, row-major.
    pub data: Bytes,
    /// The bytes are of the transposed matrix (as an ONNX export stores linear layers).
    pub transposed: bool,
}

impl RawTensor {
    /// Checks that the data is as long as shape and type say.
    pub(crate) fn new(name: &str, dtype: Dtype, shape: Vec<usize>, data: Bytes) -> Result<Self> {
        let expected = shape
            .iter()
            .try_fold(dtype.bytes(), |product, &side| product.checked_mul(side));
        if expected != Some(data.len()) {
            return Err(Error::artifact(format!(
                "tensor {name} of shape {shape:?} and type {dtype:?} has {} bytes",
                data.len()
            )));
        }
        Ok(Self {
            dtype,
            shape,
            data,
            transposed: false,
        })
    }

    /// The values as f32, row-major in the shape that PyTorch has.
    pub fn to_f32(&self) -> Vec<f32> {
        let halves = || self.data.as_chunks::<2>().0.iter();
        let values: Vec<f32> = match self.dtype {
            Dtype::F32 => self
                .data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect(),
            Dtype::F16 => halves().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::Bf16 => halves().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        };
        match (self.transposed, self.shape.as_slice()) {
            (true, &[rows, columns]) => transpose(&values, columns, rows),
            _ => values,
        }
    }
}

/// Transposes a row-major matrix of `rows`×`columns`.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    /// Side of the squares that are turned at a time, so that both sides stay in the first-level
    /// cache.
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    if out.is_empty() {
        // Without columns there may be any number of rows.
        return out;
    }
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..(row_tile + TILE).min(rows) {
                for column in column_tile..(column_tile + TILE).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

/// The tensors of a file by their name in it.
pub type TensorMap = BTreeMap<String, RawTensor>;

/// Weights of a DINOv2 under the hub's names.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: TensorMap,
    layout: Layout,
}

impl Weights {
    /// Finds out which layout the names follow.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if they follow none that is known.
    pub fn new(tensors: TensorMap) -> Result<Self> {
        let layout = Layout::detect(&tensors)?;
        Ok(Self { tensors, layout })
    }

    /// Rejects weights that have more than the model: reading only a part of them would silently give
    /// wrong features.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] that names what the model does not have.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        let has = |name: &str| {
            self.layout
                .parts(name)
                .is_some_and(|parts| parts.iter().all(|part| self.tensors.contains_key(part)))
        };
        let name = &spec.name;
        let Architecture {
            depth,
            registers,
            layer_scale,
            qkv_bias,
            ..
        } = spec.architecture;
        if registers == 0 && has("register_tokens") {
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
            ("layer_scale", layer_scale, "blocks.0.ls1.gamma"),
            ("qkv_bias", qkv_bias, "blocks.0.attn.qkv.bias"),
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

    /// The tensor with the hub's `name`, as f32 of exactly `shape`, row-major.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if it is missing or has another shape.
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
        let joined = join_shapes(&parts);
        // Before any value is read: a shape that is not the model's may be of any size.
        if !joined
            .as_deref()
            .is_some_and(|joined| same_shape(joined, shape))
        {
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

/// The shape of tensors that are joined along their first axis; `None` if they do not fit together.
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

/// Whether two shapes are equal but for leading ones (`[1, 1, D]` and `[D]`).
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    let trim = |shape: &[usize]| {
        shape
            .iter()
            .copied()
            .skip_while(|&side| side == 1)
            .collect::<Vec<_>>()
    };
    trim(a) == trim(b)
}
