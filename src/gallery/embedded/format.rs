//! Changes the precision in which a gallery is kept in memory.

use std::path::Path;

use super::{environment::Environment, view::View};
use crate::{
    error::Result,
    gallery::{GalleryName, OpenMode, VectorFormat},
};

/// Sets the format of a gallery in a folder that no server has open, and returns the one before.
/// The next start reads the vectors in the new format. Stored vectors stay as they are.
pub(in crate::gallery) fn set_vectors(
    folder: &Path,
    max_bytes: u64,
    name: &GalleryName,
    vectors: VectorFormat,
) -> Result<VectorFormat> {
    // Serving would create a folder.
    drop(Environment::open(folder, max_bytes, OpenMode::Read)?);
    let environment = Environment::open(folder, max_bytes, OpenMode::Serve)?;
    let mut txn = environment.write()?;
    let mut row = View::new(&environment, &txn).require_gallery(name)?;
    let before = std::mem::replace(&mut row.vectors, vectors);
    let galleries = environment.tables.galleries;
    galleries
        .put(&mut txn, name.as_str().as_bytes(), &row.encode()?)
        .and_then(|()| txn.commit())
        .map_err(|error| environment.failed(error))?;
    Ok(before)
}
