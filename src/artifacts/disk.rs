//! Writing files so that they are whole or not there, and hashing them.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{
    error::{Error, Result},
    hex,
};

/// Writes a file by way of a temporary one beside it, synced and renamed: readers see the old or
/// the new, whole.
///
/// # Errors
/// [`crate::error::Kind::Io`] if the folder cannot be made or the file not written.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let mut file = temporary_beside(path)?;
    write(file.as_file_mut())?;
    persist(file, path)
}

/// A temporary file in the folder where `path` is to be.
pub(super) fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let writing = |error| Error::io(format_args!("writing {}", path.display()), error);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(writing)?;
    let mut builder = tempfile::Builder::new();
    // As other files are made, less what the user's mask takes away.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder
        .prefix(".writing-")
        .tempfile_in(folder)
        .map_err(writing)?;
    UNFINISHED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(file.path().to_owned());
    Ok(file)
}

/// Temporary files that have been begun, for [`remove_unfinished`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes what is being written. For a process that ends at once, as on Ctrl-C, and drops nothing.
pub fn remove_unfinished() {
    for path in UNFINISHED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
    {
        // Finished files have another name by now.
        let _ = fs::remove_file(path);
    }
}

/// Syncs a temporary file and renames it to `path`.
pub(super) fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    let writing = |error| Error::io(format_args!("writing {}", path.display()), error);
    file.as_file().sync_all().map_err(writing)?;
    file.persist(path).map_err(|error| writing(error.error))?;
    Ok(())
}

/// SHA-256 of a file in hexadecimal. `progress` is told of the bytes read.
///
/// # Errors
/// [`crate::error::Kind::Io`] if it cannot be read.
pub fn sha256_file(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<String> {
    let reading = |error| Error::io(format_args!("reading {}", path.display()), error);
    let mut file = File::open(path).map_err(reading)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let count = file.read(&mut buffer).map_err(reading)?;
        if count == 0 {
            return Ok(hex::encode(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
        done += count as u64;
        progress(done);
    }
}

/// A writer that hashes what passes through it.
pub(super) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> HashingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    /// The inner writer and the SHA-256 in hexadecimal.
    pub(super) fn finish(self) -> (W, String) {
        (self.inner, hex::encode(&self.hash.finalize()))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
