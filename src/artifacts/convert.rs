//! Conversion of published weight files to model files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufWriter, Write},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{
    Manifest, ModelPaths, Progress, Step,
    disk::{HashingWriter, persist, sha256_file, temporary_for, write_atomically},
    map_file,
};
use crate::{
    error::{Error, Result},
    hex,
    model::{ModelSpec, SourceFormat},
    onnx::{
        Precision,
        graph::ExternalData,
        vit,
        weights::{TensorMap, Weights, read_onnx_export, read_safetensors, read_torch},
    },
};

/// Reads a weight file. Its name determines the format if `format` is `None`.
pub fn read_weights(path: &Path, format: Option<SourceFormat>) -> Result<Weights> {
    format
        .map_or_else(|| format_by_name(path), Ok)
        .and_then(|format| read_tensors(path, format))
        .and_then(Weights::new)
        .map_err(|error| error.context(path.display()))
}

fn format_by_name(path: &Path) -> Result<SourceFormat> {
    let name = file_name(path);
    let has_suffix = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if has_suffix(&[".safetensors", ".index.json"]) {
        Ok(SourceFormat::Safetensors)
    } else if has_suffix(&[".pth", ".pt", ".bin"]) {
        Ok(SourceFormat::Torch)
    } else if has_suffix(&[".onnx"]) {
        Ok(SourceFormat::Onnx)
    } else {
        Err(Error::artifact(
            "its name does not determine its format; it should end in .safetensors, .index.json, \
             .pth, .pt, .bin or .onnx",
        ))
    }
}

fn read_tensors(path: &Path, format: SourceFormat) -> Result<TensorMap> {
    match format {
        SourceFormat::Safetensors if file_name(path).ends_with(".json") => {
            let folder = path.parent().unwrap_or(Path::new("."));
            let shards = shard_names(path)?
                .iter()
                .map(|shard| map_file(&folder.join(shard)))
                .collect::<Result<Vec<_>>>()?;
            read_safetensors(&shards)
        }
        SourceFormat::Safetensors => read_safetensors(&[map_file(path)?]),
        SourceFormat::Torch => read_torch(map_file(path)?),
        SourceFormat::Onnx => read_onnx_export(map_file(path)?),
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

/// Converts `source` to a model file at `to` with its data file and manifest.
///
/// Each file is written atomically.
pub fn convert(
    spec: &ModelSpec,
    source: &Path,
    format: Option<SourceFormat>,
    precision: Precision,
    to: &Path,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    let weights = read_weights(source, format)?;
    let to = ModelPaths::new(to);
    let file = temporary_for(&to.data)?;
    let mut sink = HashingWriter::new(BufWriter::with_capacity(1 << 20, file));
    let data = ExternalData {
        location: file_name(&to.data),
        sink: &mut sink,
    };
    let depth = spec.architecture.depth as u64;
    let model = vit::build(spec, &weights, precision, data, &mut |done| {
        progress.advance(Step::Converting, done as u64, Some(depth));
    })?;
    let (writer, data_sha256) = sink.finish();
    let manifest = Manifest {
        model: spec.name.clone(),
        fingerprint: model.fingerprint,
        precision,
        sha256: hex::encode(&Sha256::digest(&model.file)),
        data_sha256,
        source: file_name(source),
        source_sha256: sha256_file(source, progress)?,
    };
    let data = writer
        .into_inner()
        .map_err(|error| Error::io("writing the model's weights", error.into_error()))?;
    // The existing model file does not match the new data file.
    let _ = fs::remove_file(&to.model);
    persist(data, &to.data)?;
    manifest.write(&to)?;
    write_atomically(&to.model, |file| {
        file.write_all(&model.file)
            .map_err(|error| Error::writing(&to.model, error))
    })?;
    Ok(manifest)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_determines_the_format() {
        for (name, format) in [
            ("model.safetensors", SourceFormat::Safetensors),
            ("model.safetensors.index.json", SourceFormat::Safetensors),
            ("dinov2_vits14_pretrain.pth", SourceFormat::Torch),
            ("pytorch_model.bin", SourceFormat::Torch),
            ("model.onnx", SourceFormat::Onnx),
        ] {
            assert_eq!(format_by_name(Path::new(name)).unwrap(), format, "{name}");
        }
        assert!(format_by_name(Path::new("model.gguf")).is_err());
    }
}
