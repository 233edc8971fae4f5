//! From a published weight file to a converted model on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{
    Progress,
    disk::{HashingWriter, persist, sha256_file, temporary_beside, write_atomically},
    map_file,
    model_file::Manifest,
};
use crate::{
    error::{Error, Result},
    model::{Ffn, ModelSpec, SourceFormat},
    onnx::{
        PRECISION, dinov2,
        graph::ExternalData,
        weights::{TensorMap, Weights, read_onnx_export, read_safetensors, read_torch},
    },
};

/// Bytes of f32 weights above which they go to a file of their own: a protobuf ends at 2 GiB.
pub(super) const EXTERNAL_ABOVE: u64 = 1_800_000_000;

/// Reads a weight file. `format` is told from the name if `None`.
///
/// # Errors
/// [`crate::error::Kind::Artifact`] if it is damaged or of no known format, [`crate::error::Kind::Io`] if it cannot be
/// read.
pub fn read_weights(path: &Path, format: Option<SourceFormat>) -> Result<Weights> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let known_by_name = || match name.as_str() {
        name if name.ends_with(".safetensors") || name.ends_with(".index.json") => Ok(SourceFormat::Safetensors),
        name if name.ends_with(".pth") || name.ends_with(".pt") || name.ends_with(".bin") => Ok(SourceFormat::Torch),
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
                let shards: Vec<_> = shards.iter().map(|shard| map_file(&folder.join(shard))).collect::<Result<_>>()?;
                read_safetensors(&shards)
            }
            SourceFormat::Safetensors => read_safetensors(&[map_file(path)?]),
            SourceFormat::Torch => read_torch(map_file(path)?),
            SourceFormat::Onnx => read_onnx_export(map_file(path)?),
        }
    };
    read().and_then(Weights::new).map_err(|error| error.context(path.display()))
}

/// The files that a `model.safetensors.index.json` names.
pub(super) fn shard_names(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(index).map_err(|error| Error::io(format_args!("reading {}", index.display()), error))?;
    let parsed: Index = serde_json::from_slice(&text)
        .map_err(|error| Error::artifact(format!("{} is not an index of shards: {error}", index.display())))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match shards.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        Some(name) => {
            Err(Error::artifact(format!("{} names the shard {name:?}, which is no plain file name", index.display())))
        }
        None => Ok(shards.into_iter().collect()),
    }
}

/// Converts `source` to the model file `to`, and writes its manifest beside it. The files appear whole or not at all.
///
/// Weights of more than `external_above` bytes go to `<to>.data`.
///
/// # Errors
/// As [`read_weights`] and [`dinov2::build`].
pub fn convert(
    spec: &ModelSpec,
    source: &Path,
    format: Option<SourceFormat>,
    to: &Path,
    external_above: u64,
    progress: Progress<'_>,
) -> Result<Manifest> {
    let weights = read_weights(source, format)?;
    let external_path = external_path(to);
    let depth = spec.depth as u64;
    let mut on_block = |done: usize| progress("converting", done as u64, Some(depth));

    let (model, data) = if parameter_bytes(spec) > external_above {
        let mut sink = HashingWriter::new(BufWriter::with_capacity(1 << 20, temporary_beside(&external_path)?));
        let location = external_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let external = ExternalData { location, sink: &mut sink };
        let model = dinov2::build(spec, &weights, Some(external), &mut on_block)?;
        let (writer, sha256) = sink.finish();
        let file = writer.into_inner().map_err(|error| Error::io("writing the model's weights", error.into_error()))?;
        (model, Some((file, sha256)))
    } else {
        (dinov2::build(spec, &weights, None, &mut on_block)?, None)
    };

    let mut sha256 = String::new();
    let external_sha256 = data.as_ref().map(|(_, sha256)| sha256.clone());
    if let Some((file, _)) = data {
        persist(file, &external_path)?;
    }
    write_atomically(to, |file| {
        let mut writer = HashingWriter::new(file);
        writer.write_all(&model.file).map_err(|error| Error::io(format_args!("writing {}", to.display()), error))?;
        sha256 = writer.finish().1;
        Ok(())
    })?;
    let manifest = Manifest {
        model: spec.name.clone(),
        fingerprint: model.fingerprint,
        precision: PRECISION.to_owned(),
        sha256,
        external_sha256,
        source: source.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        source_sha256: sha256_file(source, &mut |_| {})?,
    };
    manifest.write_beside(to)?;
    Ok(manifest)
}

/// Where a model's large tensors go: the model's name with `.data` at its end.
pub(super) fn external_path(model: &Path) -> PathBuf {
    let mut name = model.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

/// Bytes that the f32 weights of a model take.
fn parameter_bytes(spec: &ModelSpec) -> u64 {
    let (dim, hidden) = (spec.dim as u64, spec.ffn_hidden as u64);
    let ffn_matrices = if spec.ffn == Ffn::Swiglu { 3 } else { 2 };
    let block = 4 * dim * dim + ffn_matrices * dim * hidden;
    4 * (spec.depth as u64 * block + dim * (588 + (spec.native_grid * spec.native_grid) as u64))
}
