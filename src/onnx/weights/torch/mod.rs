//! Zip-format checkpoints of `torch.save`: a pickled dictionary of tensors and their storages.
//!
//! No code in a checkpoint can run: only the pickle instructions that such files consist of are
//! supported, and no function is ever called. Values of functions other than those known to
//! [`Value::reduce`] are ignored.

mod unpickler;
mod value;

use std::{
    collections::HashMap,
    io::{Cursor, Read},
};

use bytes::Bytes;
use zip::ZipArchive;

use self::{
    unpickler::Unpickler,
    value::{TensorRef, Value},
};
use super::{Dtype, RawTensor, TensorMap};
use crate::error::{Error, Result};

/// Maximum number of bytes that are read of a pickle: a hundred times that of the largest DINOv2.
const MAX_PICKLE_BYTES: u64 = 8 << 20;

/// Reads the floating-point tensors of a checkpoint. The names in an inner dictionary (`{"model":
/// {…}}`) get its key and a dot as a prefix.
pub fn read_torch(file: Bytes) -> Result<TensorMap> {
    let mut archive = ZipArchive::new(Cursor::new(file.clone())).map_err(|error| {
        Error::artifact(format!(
            "not a zip-format PyTorch checkpoint ({error}); \
             save it again with torch.save of PyTorch 1.6 or later"
        ))
    })?;
    let pickle_name = archive
        .file_names()
        .flatten()
        .find(|name| name.ends_with("/data.pkl") || name == "data.pkl")
        .ok_or_else(|| Error::artifact("the zip file contains no data.pkl"))?
        .into_owned();
    let root = pickle_name.trim_end_matches("data.pkl").to_owned();
    let mut pickle = Vec::new();
    let entry = archive
        .by_name(&pickle_name)
        .map_err(|error| Error::artifact(error.to_string()))?;
    entry
        .take(MAX_PICKLE_BYTES)
        .read_to_end(&mut pickle)
        .map_err(|error| Error::artifact(error.to_string()))?;

    let mut storages = Storages {
        file,
        archive,
        root,
        read: HashMap::new(),
    };
    let mut tensors = TensorMap::new();
    let checkpoint = Unpickler::new(&pickle).run()?;
    collect(checkpoint, "", &mut storages, &mut tensors)?;
    Ok(tensors)
}

/// Adds the tensors of `value` to `tensors`.
fn collect(
    value: Value,
    prefix: &str,
    storages: &mut Storages,
    tensors: &mut TensorMap,
) -> Result<()> {
    match value {
        Value::Dict(entries) => {
            for (key, value) in entries {
                let name = if prefix.is_empty() {
                    key.to_string()
                } else {
                    format!("{prefix}.{key}")
                };
                collect(value, &name, storages, tensors)?;
            }
        }
        Value::Tensor(tensor) => {
            if let Some(dtype) = tensor.dtype {
                let data = storages.slice(prefix, dtype, &tensor)?;
                tensors.insert(
                    prefix.to_owned(),
                    RawTensor::new(prefix, dtype, tensor.shape.clone(), data)?,
                );
            }
        }
        _ => {}
    }
    Ok(())
}

/// The storages in the zip file, which are slices of it: PyTorch does not compress them.
struct Storages {
    file: Bytes,
    archive: ZipArchive<Cursor<Bytes>>,
    root: String,
    read: HashMap<String, Bytes>,
}

impl Storages {
    /// Returns the bytes of a tensor.
    fn slice(&mut self, name: &str, dtype: Dtype, tensor: &TensorRef) -> Result<Bytes> {
        let mut stride = 1;
        for (&side, &found) in tensor.shape.iter().zip(&tensor.strides).rev() {
            if side != 1 && found != stride {
                return Err(Error::artifact(format!(
                    "tensor {name} is not contiguous; save it with .contiguous()"
                )));
            }
            // A shape whose size overflows is rejected below.
            stride = stride.saturating_mul(side);
        }
        let storage = self.storage(&tensor.key)?;
        let start = tensor.offset.checked_mul(dtype.bytes());
        let length = tensor
            .shape
            .iter()
            .try_fold(dtype.bytes(), |product, &side| product.checked_mul(side));
        let range = start
            .zip(length)
            .and_then(|(start, length)| Some(start..start.checked_add(length)?));
        match range {
            Some(range) if range.end <= storage.len() => Ok(storage.slice(range)),
            _ => Err(Error::artifact(format!(
                "tensor {name} reaches beyond its storage"
            ))),
        }
    }

    fn storage(&mut self, key: &str) -> Result<Bytes> {
        if let Some(bytes) = self.read.get(key) {
            return Ok(bytes.clone());
        }
        let path = format!("{}data/{key}", self.root);
        let entry = self
            .archive
            .by_name(&path)
            .map_err(|error| Error::artifact(format!("storage {path}: {error}")))?;
        let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        let start = entry
            .data_start()
            .and_then(|start| usize::try_from(start).ok());
        // A compressed storage could have any size.
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(Error::artifact(format!(
                "storage {path} is compressed, which PyTorch does not do; save it with torch.save"
            )));
        }
        let range = start
            .and_then(|start| Some(start..start.checked_add(size)?))
            .filter(|range| range.end <= self.file.len())
            .ok_or_else(|| Error::artifact(format!("storage {path} reaches beyond the file")))?;
        let bytes = self.file.slice(range);
        self.read.insert(key.to_owned(), bytes.clone());
        Ok(bytes)
    }
}
