//! Embeds many image files at once, for commands over whole folders.

use std::{path::Path, pin::pin};

use futures_util::{StreamExt, stream};

use super::interrupt::interrupted;
use crate::{
    error::{Error, Kind, Result},
    service::{EmbedOptions, Extractor, ImageOptions},
};

/// Embeds files, and passes the vector or the error of each to `done` with its index in `paths`, in
/// the order in which they get done. Returns early after a signal.
pub(super) async fn embed_files(
    extractor: &Extractor,
    paths: &[&Path],
    image: &ImageOptions,
    options: &EmbedOptions,
    mut done: impl FnMut(usize, Result<Vec<f32>>) -> anyhow::Result<()>,
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
) -> Result<Vec<f32>> {
    let file = tokio::fs::read(path).await;
    let file = file.map_err(|error| Error::io("reading", error))?;
    let mut embeddings = extractor.embed(vec![file.into()], image, options).await?;
    let embedding = embeddings.value.pop();
    let embedding = embedding.ok_or_else(|| Error::internal("no answer for an image"))?;
    Ok(embedding?.vector)
}
