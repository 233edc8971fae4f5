//! Safetensors files, whole or sharded.

use ::safetensors::{Dtype as StoredDtype, SafeTensors};
use bytes::Bytes;

use super::{Dtype, RawTensor, TensorMap, names::BIAS_MASK};
use crate::error::{Error, Result};

/// Reads the floating-point tensors of one or more safetensors files (the shards of a model).
pub fn read_safetensors(shards: &[Bytes]) -> Result<TensorMap> {
    let mut tensors = TensorMap::new();
    for shard in shards {
        let file = SafeTensors::deserialize(shard)
            .map_err(|error| Error::artifact(format!("not a valid safetensors file: {error}")))?;
        for (name, view) in file.iter() {
            let dtype = match view.dtype() {
                StoredDtype::F32 => Dtype::F32,
                StoredDtype::F16 => Dtype::F16,
                StoredDtype::BF16 => Dtype::Bf16,
                StoredDtype::F64 => Dtype::F64,
                other if name.ends_with(BIAS_MASK) => {
                    return Err(Error::artifact(format!(
                        "tensor {name} is of type {other:?}; save it in floats"
                    )));
                }
                _ => continue,
            };
            let data = shard.slice_ref(view.data());
            tensors.insert(
                name.to_owned(),
                RawTensor::new(name, dtype, view.shape().to_vec(), data)?,
            );
        }
    }
    Ok(tensors)
}
