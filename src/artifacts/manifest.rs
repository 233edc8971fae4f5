//! The three files of a converted model, and the manifest among them.

use std::{io::Write, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Progress,
    disk::{sha256_file, with_suffix, write_atomically},
};
use crate::{
    error::{Error, Result},
    onnx::Precision,
};

/// Paths of the files of a converted model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPaths {
    /// The ONNX model (`….onnx`). It is written last, so its presence means that all files exist.
    pub model: PathBuf,
    /// The model's large tensors (`….onnx.data`).
    pub data: PathBuf,
    /// The [`Manifest`] (`….json`).
    pub manifest: PathBuf,
}

impl ModelPaths {
    /// Derives all paths from that of the ONNX model.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        let model = model.into();
        Self {
            data: with_suffix(&model, ".data"),
            manifest: model.with_extension("json"),
            model,
        }
    }

    /// Returns whether all files exist.
    pub fn exist(&self) -> bool {
        self.model.exists() && self.data.exists() && self.manifest.exists()
    }
}

/// Description of a converted model, from which it is listed and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the model.
    pub model: String,
    /// Fingerprint in the model's metadata.
    pub fingerprint: String,
    /// Precision of the weights.
    pub precision: Precision,
    /// SHA-256 of the model file.
    pub sha256: String,
    /// SHA-256 of the data file.
    pub data_sha256: String,
    /// Name of the published weight file.
    pub source: String,
    /// Prefix of the weights' names in that file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source_prefix: String,
    /// SHA-256 of the published weight file.
    pub source_sha256: String,
}

impl Manifest {
    /// Reads the manifest of a converted model.
    pub fn read(paths: &ModelPaths) -> Result<Self> {
        let path = paths.manifest.display();
        let text = std::fs::read(&paths.manifest)
            .map_err(|error| Error::reading(&paths.manifest, error))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::artifact(format!("{path} is not a manifest: {error}")))
    }

    pub(super) fn write(&self, paths: &ModelPaths) -> Result<()> {
        let path = &paths.manifest;
        let text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        write_atomically(path, |file| {
            file.write_all(&text)
                .map_err(|error| Error::writing(path, error))
        })
    }

    /// Compares the hashes of the model file and the data file with the manifest.
    pub fn verify(&self, paths: &ModelPaths, progress: &mut dyn Progress) -> Result<()> {
        for (path, expected) in [
            (&paths.model, &self.sha256),
            (&paths.data, &self.data_sha256),
        ] {
            let found = sha256_file(path, progress)?;
            if found != *expected {
                return Err(Error::artifact(format!(
                    "{} has SHA-256 {found}, but had {expected} when it was written; it is \
                     damaged: delete it and convert the model again",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_derive_from_the_model_s() {
        let paths = ModelPaths::new("models/dinov2-small/fp32-v1.onnx");
        assert_eq!(
            paths.data,
            Path::new("models/dinov2-small/fp32-v1.onnx.data")
        );
        assert_eq!(
            paths.manifest,
            Path::new("models/dinov2-small/fp32-v1.json")
        );
    }
}
