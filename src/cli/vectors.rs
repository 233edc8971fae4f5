//! From image files to vectors, for commands over whole folders.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::progress::{Progress, Unit};
use crate::{
    error::{Error, Kind, Result},
    service::{EmbedOptions, Extractor, ImageOptions, Timed},
};

/// The vector of each file, or what is wrong with it, in their order. `step` names the work beside
/// its progress.
///
/// # Errors
/// [`Kind::InvalidOption`] for an option that no image could satisfy, [`Kind::Artifact`] if the
/// model cannot run.
pub(super) async fn embed_files(
    extractor: &Extractor,
    paths: &[PathBuf],
    image: &ImageOptions,
    options: &EmbedOptions,
    step: &str,
) -> Result<Vec<Result<Vec<f32>>>> {
    let at_once = extractor.engine().ready().await?.images_at_once();
    let embed = async |path: &Path| -> Result<Vec<f32>> {
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|error| Error::io("reading", error))?;
        let Timed {
            value: mut embeddings,
            ..
        } = extractor
            .embed(vec![Bytes::from(bytes)], image, options)
            .await?;
        let embedding = embeddings
            .pop()
            .unwrap_or_else(|| Err(Error::internal("no answer for an image")));
        embedding.map(|embedding| embedding.vector)
    };
    let mut progress = Progress::new(Unit::Images);
    let mut vectors = Vec::with_capacity(paths.len());
    let mut results = stream::iter(paths)
        .map(|path| embed(path))
        .buffered(at_once);
    while let Some(result) = results.next().await {
        match result {
            // An option that no image could satisfy is not the images' fault.
            Err(error) if error.kind() == Kind::InvalidOption => return Err(error),
            result => vectors.push(result),
        }
        progress.show(step, vectors.len() as u64, Some(paths.len() as u64));
    }
    progress.finish();
    Ok(vectors)
}
