//! What lies where in the folder of a run.

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
/// config.toml          everything that was chosen
/// checkpoint.safetensors   what the run goes on from
/// metrics.jsonl        a line per logged step and per measurement
/// curves.svg           loss, entropies and k-NN accuracy
/// maps/epoch-0005.png  attention and components of a few images
/// export/              the teacher, for `dinoserve`
/// running.lock         locked while a process writes the others
/// ```
#[derive(Debug, Clone)]
pub struct RunFiles {
    root: PathBuf,
}

impl RunFiles {
    /// The run in `root`, which need not exist.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder, and keeps other processes from running in it for as long as the file
    /// lives.
    ///
    /// # Errors
    /// If another process runs in it, or it cannot be made.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.join("running.lock");
        let opened = fs::create_dir_all(&self.root).and_then(|()| File::create(&path));
        let file = opened.with_context(|| format!("making {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                self.remove_unfinished();
                Ok(file)
            }
            // On file systems that know no locks one has to look oneself.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another process runs in {}; stop it, or give this run another --out",
                    self.root.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", path.display()))
            }
        }
    }

    /// Removes checkpoints that a process was writing when it was killed.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".tmp") || name == "checkpoint.writing" {
                let _ = fs::remove_file(entry.path());
            }
        }
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
        file.write_all(bytes)
            .map_err(|error| Error::io(format_args!("writing {}", path.display()), error))
    })
    .with_context(|| format!("writing {}", path.display()))
}
