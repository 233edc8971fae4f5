//! What lies where in the folder of a run.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use dinoserve::{artifacts::write_atomically, error::Error};

/// The folder of a run.
///
/// ```text
/// config.toml          everything that was chosen
/// checkpoint.safetensors   what the run goes on from
/// metrics.jsonl        a line per logged step and per measurement
/// curves.svg           loss, entropies and k-NN accuracy
/// maps/epoch-0005.png  attention and components of a few images
/// export/              the teacher, for `dinoserve`
/// ```
#[derive(Debug, Clone)]
pub struct RunFiles {
    root: PathBuf,
}

impl RunFiles {
    /// The run in `root`, which need not exist.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What was chosen.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// What it goes on from.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint.safetensors")
    }

    /// Lines of JSON.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The curves.
    pub fn curves(&self) -> PathBuf {
        self.root.join("curves.svg")
    }

    /// The sheet of an epoch.
    pub fn maps(&self, epoch: usize) -> PathBuf {
        self.root.join("maps").join(format!("epoch-{epoch:04}.png"))
    }

    /// What `dinoserve` takes.
    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }
}

/// Writes a whole file or none.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, |file| {
        file.write_all(bytes).map_err(|error| Error::io(format_args!("writing {}", path.display()), error))
    })
    .with_context(|| format!("writing {}", path.display()))
}
