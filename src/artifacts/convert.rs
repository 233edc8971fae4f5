//! From a published weight file to a converted model on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Progress,
    disk::{HashingWriter, persist, sha256_file, temporary_beside, write_atomically},
    map_file,
    model_file::Manifest,
};
use crate::{
    error::{Error, Result},
    hex,
    model::{ModelSpec, SourceFormat},
    onnx::{
        Precision, dinov2,
        graph::ExternalData,
        weights::{TensorMap, Weights, read_onnx_export, read_safetensors, read_torch},
    },
};

/// Reads a weight file. `format` is told from the name if `None`.
///
/// # Errors
/// [`crate::error::Kind::Artifact`] if it is damaged or of no known format,
/// [`crate::error::Kind::Io`] if it cannot be read.
pub fn read_weights(path: &Path, format: Option<SourceFormat>) -> Result<Weights> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let known_by_name = || match name.as_str() {
        name if name.ends_with(".safetensors") || name.ends_with(".index.json") => {
            Ok(SourceFormat::Safetensors)
        }
        name if name.ends_with(".pth") || name.ends_with(".pt") || name.ends_with(".bin") => {
            Ok(SourceFormat::Torch)
        }
        name if name.ends_with(".onnx") => Ok(SourceFormat::Onnx),
        _ => Err(Error::artifact(format!(
            "{}: cannot tell its format by its name; it should end in .safetensors, .index.json, .pth, .pt, .bin or .onnx",
            path.display()
        ))),
    };
    let read = || -> Result<TensorMap> {
        match format.map_or_else(known_by_name, Ok)? {
            SourceFormat::Safetensors if name.ends_with(".json") => {
                let shards = shard_names(path)?;
                let folder = path.parent().unwrap_or(Path::new("."));
                let shards: Vec<_> = shards
                    .iter()
                    .map(|shard| map_file(&folder.join(shard)))
                    .collect::<Result<_>>()?;
                read_safetensors(&shards)
            }
            SourceFormat::Safetensors => read_safetensors(&[map_file(path)?]),
            SourceFormat::Torch => read_torch(map_file(path)?),
            SourceFormat::Onnx => read_onnx_export(map_file(path)?),
        }
    };
    read()
        .and_then(Weights::new)
        .map_err(|error| error.context(path.display()))
}

/// The files that a `model.safetensors.index.json` names.
pub(super) fn shard_names(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(index)
        .map_err(|error| Error::io(format_args!("reading {}", index.display()), error))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|error| {
        Error::artifact(format!(
            "{} is not an index of shards: {error}",
            index.display()
        ))
    })?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match shards
        .iter()
        .find(|name| name.contains(['/', '\\']) || name.starts_with('.'))
    {
        Some(name) => Err(Error::artifact(format!(
            "{} names the shard {name:?}, which is no plain file name",
            index.display()
        ))),
        None => Ok(shards.into_iter().collect()),
    }
}

/// Converts `source` to the model file `to` with its large tensors in `<to>.data`, and writes its
/// manifest beside it. The files appear whole or not at all; the model file last, so that where it
/// is, everything is.
///
/// # Errors
/// As [`read_weights`] and [`dinov2::build`].
pub fn convert(
    spec: &ModelSpec,
    source: &Path,
    format: Option<SourceFormat>,
    precision: Precision,
    to: &Path,
    progress: Progress<'_>,
) -> Result<Manifest> {
    let weights = read_weights(source, format)?;
    let data_path = data_path(to);
    let depth = spec.depth as u64;
    let mut on_block = |done: usize| progress("converting", done as u64, Some(depth));

    let mut sink = HashingWriter::new(BufWriter::with_capacity(
        1 << 20,
        temporary_beside(&data_path)?,
    ));
    let location = data_path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let data = ExternalData {
        location,
        sink: &mut sink,
    };
    let model = dinov2::build(spec, &weights, precision, data, &mut on_block)?;
    let (writer, data_sha256) = sink.finish();
    let total = std::fs::metadata(source)
        .map(|metadata| metadata.len())
        .ok();
    let manifest = Manifest {
        model: spec.name.clone(),
        fingerprint: model.fingerprint,
        precision,
        sha256: hex::encode(&Sha256::digest(&model.file)),
        data_sha256,
        source: source
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        source_sha256: sha256_file(source, &mut |done| progress("checking", done, total))?,
    };
    let file = writer
        .into_inner()
        .map_err(|error| Error::io("writing the model's weights", error.into_error()))?;
    // An older model file would not fit the new data.
    let _ = std::fs::remove_file(to);
    persist(file, &data_path)?;
    manifest.write_beside(to)?;
    write_atomically(to, |file| {
        file.write_all(&model.file)
            .map_err(|error| Error::io(format_args!("writing {}", to.display()), error))
    })?;
    Ok(manifest)
}

/// Where a model's large tensors go: the model's name with `.data` at its end.
pub(super) fn data_path(model: &Path) -> PathBuf {
    let mut name = model.as_os_str().to_owned();
    name.push(".data");
    name.into()
}
