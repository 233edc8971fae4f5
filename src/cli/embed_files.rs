//! Embeds many image files at once, for commands over whole folders.

use std::{path::Path, pin::pin};

use futures_util::{StreamExt, stream};

use super::interrupt::interrupted;
use crate::{
    error::{Error, Kind, Result},
    service::{EmbedOptions, Extractor, ImageOptions},
};

/// The vector of a file.
pub(super) struct FileVector {
    pub(super) vector: Vec<f32>,
    /// Whether the image is nearly black because its samples use few of their 16 bits.
    pub(super) is_dim: bool,
}

/// Embeds files, and passes the vector or the error of each to `done` with its index in `paths`, in
/// the order in which they get done. Returns early after a signal.
pub(super) async fn embed_files(
    extractor: &Extractor,
    paths: &[&Path],
    image: &ImageOptions,
    options: &EmbedOptions,
    mut done: impl FnMut(usize, Result<FileVector>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let concurrency = extractor.engine().ready().await?.max_concurrent_images();
    let results =
        stream::iter(paths)
            .enumerate()
            .map(|(index, path)| async move {
                (index, embed_file(extractor, path, image, options).await)
            })
            .buffer_unordered(concurrency)
            .take_until(interrupted());
    let mut results = pin!(results);
    while let Some((index, result)) = results.next().await {
        match result {
            Err(error) if error.kind() == Kind::InvalidOption => return Err(error.into()),
            result => done(index, result)?,
        }
    }
    Ok(())
}

async fn embed_file(
    extractor: &Extractor,
    path: &Path,
    image: &ImageOptions,
    options: &EmbedOptions,
) -> Result<FileVector> {
    let file = tokio::fs::read(path).await;
    let file = file.map_err(|error| Error::io("reading", error))?;
    let mut embeddings = extractor.embed(vec![file.into()], image, options).await?;
    let embedding = embeddings.value.pop();
    let embedding = embedding.ok_or_else(|| Error::internal("no answer for an image"))?;
    Ok(FileVector {
        vector: embedding?.vector,
        is_dim: embeddings.stages.has_dim_image,
    })
}
