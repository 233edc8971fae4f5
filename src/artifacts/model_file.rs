//! A converted model on disk, and what it says of itself.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use ndarray::Array2;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    convert::data_path,
    disk::{sha256_file, write_atomically},
    map_file,
};
use crate::{
    error::{Error, Result},
    hex,
    model::{ModelSpec, PositionRule, PositionTable},
    onnx::{
        Precision, metadata,
        proto::{DataType, ModelProto, TensorProto},
    },
};

/// What is written beside a converted model, so that it can be listed and verified without reading
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the model.
    pub model: String,
    /// The fingerprint in its metadata.
    pub fingerprint: String,
    /// Precision of its weights.
    pub precision: Precision,
    /// SHA-256 of the model file.
    pub sha256: String,
    /// SHA-256 of the file with its large tensors.
    pub data_sha256: String,
    /// Name of the weight file it was made from.
    pub source: String,
    /// SHA-256 of that file.
    pub source_sha256: String,
}

impl Manifest {
    pub(super) fn path(model: &Path) -> PathBuf {
        model.with_extension("json")
    }

    /// Reads the manifest beside a model.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] or [`crate::error::Kind::Io`] if it cannot be read.
    pub fn read_beside(model: &Path) -> Result<Self> {
        let path = Self::path(model);
        let text = std::fs::read(&path)
            .map_err(|error| Error::io(format_args!("reading {}", path.display()), error))?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::artifact(format!("{} is not a manifest: {error}", path.display()))
        })
    }

    pub(super) fn write_beside(&self, model: &Path) -> Result<()> {
        let path = Self::path(model);
        let text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        write_atomically(&path, |file| {
            std::io::Write::write_all(file, &text)
                .map_err(|error| Error::io(format_args!("writing {}", path.display()), error))
        })
    }

    /// Hashes the files and compares.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] that names the file that differs.
    pub fn check_files(&self, model: &Path, progress: &mut dyn FnMut(u64)) -> Result<()> {
        for (path, expected) in [
            (model.to_owned(), &self.sha256),
            (data_path(model), &self.data_sha256),
        ] {
            let found = sha256_file(&path, progress)?;
            if found != *expected {
                return Err(Error::artifact(format!(
                    "{} has SHA-256 {found}, but {expected} when it was written; it is damaged: delete it and convert \
                     the model again",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// A large tensor of a converted model: where it lies in the data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWeight {
    /// Its name in the graph.
    pub name: String,
    /// Type of its elements.
    pub kind: DataType,
    /// Its sides.
    pub shape: Vec<i64>,
    /// Its bytes, little-endian, aligned to a page.
    pub range: Range<usize>,
}

impl StoredWeight {
    /// `None` for a small tensor, which stays in the model file itself, or a damaged entry.
    fn of(tensor: &TensorProto) -> Option<Self> {
        let entry = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key == key)?;
            entry.value.parse::<usize>().ok()
        };
        let (offset, length) = (entry("offset")?, entry("length")?);
        Some(Self {
            name: tensor.name.clone(),
            kind: DataType::try_from(tensor.data_type).ok()?,
            shape: tensor.dims.clone(),
            range: offset..offset.checked_add(length)?,
        })
    }
}

/// A converted model that was opened and understood, but not yet loaded by a runtime.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The variant it is.
    pub spec: ModelSpec,
    /// Identifies its features: hash of weights, precision, graph version and position rule.
    pub fingerprint: String,
    /// Precision of its weights.
    pub precision: Precision,
    /// Its large tensors, which lie in [`ModelFile::data`].
    pub weights: Vec<StoredWeight>,
    /// Makes position embeddings for any grid.
    pub positions: PositionTable,
}

impl ModelFile {
    /// Opens a model that `dinoserve models convert` wrote.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if it is damaged or not one of ours,
    /// [`crate::error::Kind::Io`] if it cannot be read.
    pub fn open(path: &Path, rule: PositionRule) -> Result<Self> {
        let wrong = |detail: &str| Error::artifact(format!("{}: {detail}", path.display()));
        let model = ModelProto::decode(map_file(path)?).map_err(|error| {
            wrong(&format!(
                "damaged, or not an ONNX file ({error}); convert it again"
            ))
        })?;
        let entry = |key: &str| {
            let found = model
                .metadata_props
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| entry.value.clone());
            found.ok_or_else(|| {
                wrong("not a model that `dinoserve models convert` wrote; convert it first")
            })
        };
        let spec: ModelSpec = serde_json::from_str(&entry(metadata::SPEC)?).map_err(|error| {
            wrong(&format!(
                "written by another version of dinoserve ({error}); convert it again"
            ))
        })?;
        spec.check()
            .map_err(|error| error.context(path.display()))?;
        let graph = model
            .graph
            .as_ref()
            .ok_or_else(|| wrong("holds no graph; convert it again"))?;
        let tensor = graph
            .initializer
            .iter()
            .find(|tensor| tensor.name == "pos_embed");
        let tensor = tensor.ok_or_else(|| wrong("holds no position table; convert it again"))?;
        let values = tensor
            .raw_data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect();
        let table = Array2::from_shape_vec(
            (1 + spec.native_grid * spec.native_grid, spec.dim),
            values,
        )
        .map_err(|_| {
            wrong("its position table has another size than its description says; convert it again")
        })?;
        Ok(Self {
            path: path.to_owned(),
            fingerprint: effective_fingerprint(&entry(metadata::FINGERPRINT)?, rule),
            precision: entry(metadata::PRECISION)?.parse().map_err(|_| {
                wrong("of a precision that this version does not know; convert it again")
            })?,
            weights: graph
                .initializer
                .iter()
                .filter_map(StoredWeight::of)
                .collect(),
            positions: PositionTable::new(table, &spec, rule),
            spec,
        })
    }

    /// The file with its large tensors.
    pub fn data(&self) -> PathBuf {
        data_path(&self.path)
    }
}

/// The position rule belongs to a feature's identity, too; the default leaves the file's
/// fingerprint as it is.
fn effective_fingerprint(of_file: &str, rule: PositionRule) -> String {
    use sha2::{Digest, Sha256};
    match rule {
        PositionRule::Hub => of_file.to_owned(),
        PositionRule::Hf => hex::encode(&Sha256::digest(format!("{of_file} pos_embed=hf"))),
    }
}
