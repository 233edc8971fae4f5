//! Files mapped into memory: the one place with `unsafe` of our own.

#![allow(unsafe_code, reason = "mapping a file is unsafe by nature; the contract is below")]

use std::{fs::File, path::Path};

use bytes::Bytes;
use memmap2::Mmap;

use crate::error::{Error, Result};

/// The contents of a file, mapped and not read: pages come in when they are looked at.
///
/// # Errors
/// [`crate::error::Kind::Io`] if the file cannot be opened.
pub fn map_file(path: &Path) -> Result<Bytes> {
    let reading = |error| Error::io(format_args!("reading {}", path.display()), error);
    let file = File::open(path).map_err(reading)?;
    if file.metadata().map_err(reading)?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only. Files in the cache are written beside their place and renamed into
    // it, never changed in place, so the bytes cannot change while they are borrowed.
    let map = unsafe { Mmap::map(&file) }.map_err(reading)?;
    Ok(Bytes::from_owner(map))
}
