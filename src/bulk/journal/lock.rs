//! Files that one process writes.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::Path,
};

use crate::error::{Error, Kind, Result};

/// Opens and locks a file, which is made if it does not exist.
pub(super) fn lock(path: &Path) -> Result<File> {
    let writing = |error| Error::writing(path, error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(writing)?;
    }
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true);
    let file = options.open(path).map_err(writing)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            Kind::Conflict,
            format!(
                "another process writes {}; wait for its end, or give another --output",
                path.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(writing(error)),
    }
}
