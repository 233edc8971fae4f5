//! Files mapped into memory.

#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; the contract is below"
)]

use std::{fs::File, path::Path};

use bytes::Bytes;
use memmap2::Mmap;

use crate::error::{Error, Result};

/// The contents of a file, mapped into memory. The kernel reads a page on its first access.
#[derive(Debug)]
pub struct Mapping(Mmap);

impl Mapping {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let reading = |error| Error::reading(path, error);
        let file = File::open(path).map_err(reading)?;
        // SAFETY: the mapping is private and read-only. Files in the cache are written under a
        // temporary name and renamed, never changed in place, so the bytes cannot change while they
        // are borrowed.
        unsafe { Mmap::map(&file) }.map(Self).map_err(reading)
    }

    /// Releases the memory of the pages. A later access reads the same bytes from the file.
    pub fn release_pages(&self) {
        #[cfg(unix)]
        // SAFETY: the mapping of the file is read-only, so its pages contain no change that could
        // be lost.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Releases the memory of pages that any code of this process has mapped from the file at `path`,
/// read-only. A later access reads the same bytes from the file. Does nothing where the kernel does
/// not list the mappings.
///
/// # Safety
/// No other thread may unmap the file meanwhile, as its addresses could get a new use, and no code
/// may have written to a mapping of it.
pub(crate) unsafe fn release_pages_of(path: &Path) {
    #[cfg(target_os = "linux")]
    {
        use procfs::process::{MMPermissions, MMapPath, Process};
        use rustix::mm::{Advice, madvise};
        let Ok(path) = path.canonicalize() else {
            return;
        };
        let Ok(maps) = Process::myself().and_then(|process| process.maps()) else {
            return;
        };
        for map in maps {
            let is_of_file = matches!(&map.pathname, MMapPath::Path(found) if *found == path);
            if is_of_file && !map.perms.contains(MMPermissions::WRITE) {
                let (start, end) = map.address;
                // SAFETY: by the contract the pages are still mapped, and contain no change that
                // could be lost.
                let _ = unsafe {
                    madvise(
                        start as *mut std::ffi::c_void,
                        (end - start) as usize,
                        Advice::LinuxDontNeed,
                    )
                };
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

/// Maps a file for readers that share parts of it.
pub fn map_file(path: &Path) -> Result<Bytes> {
    Mapping::open(path).map(Bytes::from_owner)
}
