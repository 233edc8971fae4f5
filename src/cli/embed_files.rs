//! Embeds many image files at once, for commands over whole folders.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};

use super::progress::{Progress, Unit};
use crate::{
    error::{Error, Kind, Result},
    service::{EmbedOptions, Extractor, ImageOptions},
};

/// Returns the vector or the error of each file, in the order of `paths`. `step` names the work in
/// the progress.
pub(super) async fn embed_files(
    extractor: &Extractor,
    paths: &[PathBuf],
    image: &ImageOptions,
    options: &EmbedOptions,
    step: &str,
) -> Result<Vec<Result<Vec<f32>>>> {
    let concurrency = extractor.engine().ready().await?.max_concurrent_images();
    let mut results = stream::iter(paths)
        .map(|path| embed_file(extractor, path, image, options))
        .buffered(concurrency);
    let mut progress = Progress::new(Unit::Items);
    let mut vectors = Vec::with_capacity(paths.len());
    while let Some(result) = results.next().await {
        match result {
            Err(error) if error.kind() == Kind::InvalidOption => return Err(error),
            result => vectors.push(result),
        }
        progress.show(step, vectors.len() as u64, Some(paths.len() as u64));
    }
    Ok(vectors)
}

async fn embed_file(
    extractor: &Extractor,
    path: &Path,
    image: &ImageOptions,
    options: &EmbedOptions,
) -> Result<Vec<f32>> {
    let file = tokio::fs::read(path).await;
    let file = file.map_err(|error| Error::io("reading", error))?;
    let mut embeddings = extractor.embed(vec![file.into()], image, options).await?;
    let embedding = embeddings.value.pop();
    let embedding = embedding.ok_or_else(|| Error::internal("no answer for an image"))?;
    Ok(embedding?.vector)
}
