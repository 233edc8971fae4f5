//! The file that says that a shard is finished, and what it has.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result},
    hex,
    sources::{Place, Shard},
};

/// The manifest of a finished shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which part of the run it is.
    pub shard: Shard,
    /// Name of the model.
    pub model: String,
    /// Fingerprint of the model.
    pub fingerprint: String,
    /// All that the results depend on but the images.
    pub options: Value,
    /// The sources as they were given.
    pub sources: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Number of images of the shard.
    pub images: u64,
    /// Number of those with features.
    pub embedded: u64,
    /// The others.
    pub failures: Vec<Failure>,
    /// The file of results.
    pub output: OutputFile,
}

/// An image without features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Id of the image, or its place in a list.
    pub id: String,
    /// The reason.
    pub error: String,
}

/// The file of results.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputFile {
    /// Name, in the folder of the manifest.
    pub file: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl OutputFile {
    /// Describes a file that is written.
    pub fn of(file: &Path, name: String) -> Result<Self> {
        let reading = |error| Error::reading(file, error);
        let mut hash = Sha256::new();
        let mut content = BufReader::with_capacity(1 << 16, File::open(file).map_err(reading)?);
        let mut bytes = 0;
        loop {
            let part = content.fill_buf().map_err(reading)?;
            if part.is_empty() {
                break;
            }
            hash.update(part);
            let length = part.len();
            bytes += length as u64;
            content.consume(length);
        }
        Ok(Self {
            file: name,
            bytes,
            sha256: hex::encode(&hash.finalize()),
        })
    }
}

impl Manifest {
    /// Reads the manifest of a shard; `None` if the shard is not finished.
    pub async fn read(place: &Place) -> Result<Option<Self>> {
        let Some(bytes) = place.read_if_exists().await? else {
            return Ok(None);
        };
        let manifest = serde_json::from_slice(&bytes).map_err(|error| {
            Error::damaged(format!("{place} is no manifest: {error}")).with_source(error)
        })?;
        Ok(Some(manifest))
    }

    /// Rejects the manifest of another run than the one of `other`, which has no results yet.
    ///
    /// # Errors
    /// [`Kind::Conflict`] that names the difference.
    pub fn check_same_run(&self, other: &Self, place: &Place) -> Result<()> {
        let difference = if self.fingerprint != other.fingerprint {
            format!(
                "of the model {} ({}), not of {} ({})",
                self.model, self.fingerprint, other.model, other.fingerprint
            )
        } else if self.options != other.options {
            format!("with the options {}, not {}", self.options, other.options)
        } else if self.sources != other.sources {
            let list = |sources: &[String]| sources.join(" ");
            format!(
                "of {}, not of {}",
                list(&self.sources),
                list(&other.sources)
            )
        } else {
            return Ok(());
        };
        let detail = format!(
            "{place} says that the shard is finished {difference}; give another --output, or \
             delete the shard's files"
        );
        Err(Error::new(Kind::Conflict, detail))
    }
}
