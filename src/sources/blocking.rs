//! Sources for programs without a tokio runtime, such as the trainer.

use std::{
    io,
    sync::{LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::runtime::{Builder, Handle, Runtime};

use super::{ListedImages, Listing, SourceImage};
use crate::error::{Error, Result};

/// Lists everything in sources, see [`Listing::open`] and [`Listing::list_all`].
///
/// # Errors
/// A source that cannot be opened or read to its end.
pub fn list(sources: &[String], column: Option<&str>) -> Result<ListedImages> {
    runtime()?.block_on(async { Listing::open(sources, column).await?.list_all().await })
}

/// Reads the file of an image, see [`SourceImage::read`].
///
/// # Errors
/// As there.
pub fn read(image: &SourceImage) -> Result<Bytes> {
    runtime()?.block_on(image.read())
}

/// Returns the runtime, which is started by the first call.
fn runtime() -> Result<Handle> {
    static RUNTIME: LazyLock<Mutex<Option<Runtime>>> = LazyLock::new(Mutex::default);

    let start = || -> io::Result<Handle> {
        let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let started = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok(runtime.insert(started).handle().clone())
    };
    start().map_err(|error| Error::io("starting threads that read images", error))
}
