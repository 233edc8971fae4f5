//! The files in the folder of a run.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use dinoserve::{artifacts::write_atomically, error::Error};

/// The folder of a run.
///
/// ```text
/// config.toml              the configuration
/// checkpoint.safetensors   the state that the run is resumed from
/// metrics.jsonl            a line per logged step and per measurement
/// curves.svg               loss, entropies or accuracy, and k-NN accuracy
/// maps/epoch-0005.png      attention and PCA maps of a few images
/// export/                  the teacher, for `dinoserve`
/// running.lock             locked while a process writes the others
/// ```
#[derive(Debug, Clone)]
pub struct RunFiles {
    root: PathBuf,
}

impl RunFiles {
    /// Describes the run in `root`, which need not exist.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Returns the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the folder, and locks it against other processes until the file is dropped.
    ///
    /// # Errors
    /// If another process has locked it, or it cannot be created.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.join("running.lock");
        let opened = fs::create_dir_all(&self.root).and_then(|()| File::create(&path));
        let file = opened.with_context(|| format!("creating {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                self.remove_unfinished();
                Ok(file)
            }
            // Some file systems do not support locks; the user must take care there.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another process is running in {}; stop it, or choose another --out",
                    self.root.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", path.display()))
            }
        }
    }

    /// Removes unfinished files of a process that was killed.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".tmp") || name == "checkpoint.writing" {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Returns the path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Returns the path of the checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint.safetensors")
    }

    /// Returns the path of the metrics.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// Returns the path of the curves.
    pub fn curves(&self) -> PathBuf {
        self.root.join("curves.svg")
    }

    /// Returns the path of the maps after an epoch.
    pub fn maps(&self, epoch: usize) -> PathBuf {
        self.root.join("maps").join(format!("epoch-{epoch:04}.png"))
    }

    /// Returns the folder of the exported model.
    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }
}

/// Writes a file atomically.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, |file| {
        file.write_all(bytes)
            .map_err(|error| Error::io(format_args!("writing {}", path.display()), error))
    })
    .with_context(|| format!("writing {}", path.display()))
}
