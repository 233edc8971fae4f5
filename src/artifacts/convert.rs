//! Conversion of published weight files to model files.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{
    Manifest, ModelPaths, Progress, Step,
    disk::{HashingWriter, persist, sha256_file, temporary_for, write_atomically},
    weight_file::{WeightFile, file_name},
};
use crate::{
    error::{Error, Result},
    hex,
    model::ModelSpec,
    onnx::{Conversion, graph::ExternalData, vit},
};

/// Converts `source` to a model file at `to` with its data file and manifest.
///
/// Each file is written atomically. Two conversions to the same file at a time would leave a
/// mixture; see [`super::ModelStore::convert`].
pub fn convert(
    spec: &ModelSpec,
    source: &WeightFile,
    conversion: impl Into<Conversion>,
    to: &Path,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    let conversion = conversion.into();
    let to = ModelPaths::new(to);
    let file = temporary_for(&to.data)?;
    let mut sink = HashingWriter::new(BufWriter::with_capacity(1 << 20, file));
    let data = ExternalData {
        location: file_name(&to.data),
        sink: &mut sink,
    };
    let depth = spec.architecture.depth as u64;
    let model = vit::build(spec, source.weights(), conversion, data, &mut |done| {
        progress.advance(Step::Converting, done as u64, Some(depth));
    })?;
    let (writer, data_sha256) = sink.finish();
    let manifest = Manifest {
        model: spec.name.clone(),
        fingerprint: model.fingerprint,
        precision: conversion.precision,
        sha256: hex::encode(&Sha256::digest(&model.file)),
        data_sha256,
        source: file_name(source.path()),
        source_prefix: source.weights().prefix().to_owned(),
        source_sha256: sha256_file(source.path(), progress)?,
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
