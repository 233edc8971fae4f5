//! Tensors of a weight file.

use std::collections::BTreeMap;

use bytes::Bytes;
use half::{bf16, f16};

use crate::error::{Error, Result};

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit floats, which are rounded to 32 bits when they are read.
    F64,
}

impl Dtype {
    /// Returns the size of an element.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F64 => 8,
        }
    }
}

/// A tensor with the bytes of its file, little-endian.
#[derive(Debug, Clone)]
pub struct RawTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Shape as in PyTorch.
    pub shape: Vec<usize>,
    /// Bytes, row-major.
    pub data: Bytes,
    /// Whether the bytes are those of the transposed matrix, as in linear layers of an ONNX export.
    pub transposed: bool,
}

impl RawTensor {
    /// Makes a tensor, and checks that the length of its data fits shape and type.
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

    /// Makes a tensor of zeros with the shape of this one.
    pub(super) fn zeros(&self) -> Self {
        Self {
            data: vec![0; self.data.len()].into(),
            ..self.clone()
        }
    }

    /// Converts the values to f32, row-major in PyTorch's shape.
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
            Dtype::F64 => self
                .data
                .as_chunks::<8>()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b) as f32)
                .collect(),
        };
        match (self.transposed, self.shape.as_slice()) {
            (true, &[rows, columns]) => transpose(&values, columns, rows),
            _ => values,
        }
    }
}

/// Transposes a row-major matrix of `rows`×`columns`.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    /// Side of the squares that are transposed at a time, so that both sides stay in the
    /// first-level cache.
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    if out.is_empty() {
        // Without columns there can be any number of rows.
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

/// Tensors of a file by their names in it.
pub type TensorMap = BTreeMap<String, RawTensor>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_matrix_has_its_columns_as_rows() {
        assert_eq!(
            transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
        assert!(transpose(&[], 5, 0).is_empty());
        let values: Vec<f32> = (0..70 * 33).map(|i| i as f32).collect();
        let there = transpose(&values, 70, 33);
        assert_eq!(transpose(&there, 33, 70), values);
    }
}
