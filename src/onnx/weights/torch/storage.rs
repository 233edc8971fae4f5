//! Storages, and the tensors that are parts of them.

use std::{collections::HashMap, rc::Rc};

use bytes::Bytes;

use super::object::{Storage, TensorRef};
use crate::{
    error::{Error, Result},
    onnx::weights::{Dtype, RawTensor},
};

/// Where the bytes of storages come from.
pub(super) trait Storages {
    /// Returns the bytes of a storage.
    fn bytes(&mut self, storage: &Storage) -> Result<Bytes>;
}

impl Storages for HashMap<Rc<str>, Bytes> {
    fn bytes(&mut self, storage: &Storage) -> Result<Bytes> {
        self.get(&storage.key)
            .cloned()
            .ok_or_else(|| Error::artifact(format!("storage {} is not in the file", storage.key)))
    }
}

/// Returns the type of weights by its name, such as `torch.float32` or `torch.FloatStorage`; `None`
/// for one that no weight has, such as integers.
pub(super) fn weight_type(name: &str) -> Option<Dtype> {
    Some(match name.rsplit('.').next()? {
        "FloatStorage" | "float32" | "float" => Dtype::F32,
        "DoubleStorage" | "float64" | "double" => Dtype::F64,
        "HalfStorage" | "float16" | "half" => Dtype::F16,
        "BFloat16Storage" | "bfloat16" => Dtype::Bf16,
        _ => return None,
    })
}

/// Returns the size of an element of a storage of class `class`, in bytes.
pub(super) fn element_bytes(class: &str) -> Option<usize> {
    Some(match class.rsplit('.').next()? {
        "ByteStorage" | "CharStorage" | "BoolStorage" | "UntypedStorage" | "QInt8Storage"
        | "QUInt8Storage" => 1,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "FloatStorage" | "IntStorage" | "QInt32Storage" => 4,
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "ComplexDoubleStorage" => 16,
        _ => return None,
    })
}

/// Returns a tensor's values, or `None` if they are not those of a weight. `budget` bounds the
/// bytes that all tensors together may copy.
pub(super) fn read(
    name: &str,
    tensor: &TensorRef,
    storages: &mut dyn Storages,
    budget: &mut usize,
) -> Result<Option<RawTensor>> {
    let type_name = tensor.dtype.as_ref().unwrap_or(&tensor.storage.class);
    let Some(dtype) = weight_type(type_name) else {
        return Ok(None);
    };
    let beyond = || Error::artifact(format!("tensor {name} reaches beyond its storage"));
    let storage = storages.bytes(&tensor.storage)?;
    let size = dtype.bytes();
    let length = tensor
        .shape
        .iter()
        .try_fold(size, |product, &side| product.checked_mul(side))
        .ok_or_else(beyond)?;
    let start = tensor.offset.checked_mul(size).ok_or_else(beyond)?;
    let data = if tensor.shape.len() != tensor.strides.len() {
        return Err(Error::artifact(format!(
            "tensor {name} has {} axes and {} strides",
            tensor.shape.len(),
            tensor.strides.len()
        )));
    } else if length == 0 {
        Bytes::new()
    } else if is_contiguous(tensor) {
        let end = start.checked_add(length).ok_or_else(beyond)?;
        if end > storage.len() {
            return Err(beyond());
        }
        storage.slice(start..end)
    } else {
        *budget = budget.checked_sub(length).ok_or_else(|| {
            Error::artifact(format!(
                "tensor {name} repeats its values; save it with .contiguous()"
            ))
        })?;
        gather(tensor, size, &storage).ok_or_else(beyond)?
    };
    RawTensor::new(name, dtype, tensor.shape.clone(), data).map(Some)
}

fn is_contiguous(tensor: &TensorRef) -> bool {
    let mut stride = 1_usize;
    for (&side, &found) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if side != 1 && found != stride {
            return false;
        }
        stride = stride.saturating_mul(side);
    }
    true
}

/// Copies the elements of a strided tensor in the order of its axes.
fn gather(tensor: &TensorRef, size: usize, storage: &Bytes) -> Option<Bytes> {
    let mut out = Vec::new();
    let mut index = vec![0; tensor.shape.len()];
    loop {
        let mut at = tensor.offset;
        for (&position, &stride) in index.iter().zip(&tensor.strides) {
            at = at.checked_add(stride.checked_mul(position)?)?;
        }
        let start = at.checked_mul(size)?;
        out.extend_from_slice(storage.get(start..start.checked_add(size)?)?);
        // Counts up, the last axis first.
        let axis = (0..index.len()).rev().find(|&axis| {
            index[axis] += 1;
            let is_within = index[axis] < tensor.shape[axis];
            if !is_within {
                index[axis] = 0;
            }
            is_within
        });
        if axis.is_none() {
            return Some(out.into());
        }
    }
}
