//! Atomic writes and hashes of files.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{Progress, Step};
use crate::{
    error::{Error, Result},
    hex,
};

/// Suffix of a file that is locked while another one is written.
const LOCK: &str = ".lock";

/// Writes a file atomically: a temporary file in the same folder is written, synced and renamed.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let mut file = temporary_for(path)?;
    write(file.as_file_mut())?;
    persist(file, path)
}

/// Creates a temporary file in the folder of `path`, which is created if necessary.
pub(super) fn temporary_for(path: &Path) -> Result<NamedTempFile> {
    let writing = |error| Error::writing(path, error);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(writing)?;
    let mut builder = tempfile::Builder::new();
    // The default of `tempfile` is 0600; other files have 0666 less the umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut unfinished = unfinished();
    let file = builder
        .prefix(".writing-")
        .tempfile_in(folder)
        .map_err(writing)?;
    unfinished.push(file.path().to_owned());
    Ok(file)
}

/// Waits until no other process writes `path`, and keeps others from it until the result is
/// dropped. The folder is created if necessary.
///
/// The lock is a separate file that stays: a file that is renamed or deleted could be locked twice.
pub(super) fn lock(path: &Path) -> Result<File> {
    let writing = |error| Error::writing(path, error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(writing)?;
    }
    let lock = File::create(with_suffix(path, LOCK)).map_err(writing)?;
    if lock.try_lock().is_err() {
        wait_for(path);
        lock.lock().map_err(writing)?;
    }
    Ok(lock)
}

/// Waits until no process writes `path`, and keeps them from it until the result is dropped.
/// Returns `None` without a file to lock, as in a folder that was copied or cannot be read.
pub(super) fn lock_to_read(path: &Path) -> Option<File> {
    let lock = File::open(with_suffix(path, LOCK)).ok()?;
    if lock.try_lock_shared().is_err() {
        wait_for(path);
        lock.lock_shared().ok()?;
    }
    Some(lock)
}

fn wait_for(path: &Path) {
    let path = path.display();
    tracing::info!(%path, "waiting for another process that uses the file");
}

/// Appends `suffix` to the file name of `path`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Temporary files of this process, for [`remove_unfinished`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps files from being begun and finished until it is dropped.
#[derive(Debug)]
pub struct NoWrites {
    _unfinished: MutexGuard<'static, Vec<PathBuf>>,
}

/// Removes unfinished temporary files, for a process that exits without dropping them (Ctrl-C). The
/// process exits while it holds the result, so that no other thread begins or finishes a file.
pub fn remove_unfinished() -> NoWrites {
    let mut unfinished = unfinished();
    for path in unfinished.drain(..) {
        // A finished file has been renamed, so this fails for it.
        let _ = fs::remove_file(path);
    }
    NoWrites {
        _unfinished: unfinished,
    }
}

/// Syncs a temporary file and renames it to `path`.
pub(super) fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    let writing = |error| Error::writing(path, error);
    file.as_file().sync_all().map_err(writing)?;
    let _unfinished = unfinished();
    file.persist(path).map_err(|error| writing(error.error))?;
    Ok(())
}

/// Returns the SHA-256 of a file in hexadecimal.
pub fn sha256_file(path: &Path, progress: &mut dyn Progress) -> Result<String> {
    let reading = |error| Error::reading(path, error);
    let mut file = File::open(path).map_err(reading)?;
    let total = file.metadata().ok().map(|metadata| metadata.len());
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
        progress.advance(Step::Checking, done, total);
    }
}

/// Hashes the bytes that are written through it.
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

    /// Returns the inner writer and the SHA-256 in hexadecimal.
    pub(super) fn finish(self) -> (W, String) {
        (self.inner, hex::encode(&self.hash.finalize()))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
