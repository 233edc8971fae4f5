//! Embeds many images at once, for evaluations and audits.

use std::pin::pin;

use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};

use super::interrupt::interrupted;
use crate::{
    error::{Error, Kind, Result},
    service::{EmbedOptions, Extractor, ImageOptions},
    sources::SourceImage,
};

/// The vector of a file.
pub(super) struct FileVector {
    pub(super) vector: Vec<f32>,
    /// Whether the image is nearly black because its samples use few of their 16 bits.
    pub(super) is_dim: bool,
    /// SHA-256 of the file.
    pub(super) hash: [u8; 32],
}

/// Embeds images, and passes the vector or the error of each to `done` with its index, in the
/// order in which they get done. Returns early after a signal.
pub(super) async fn embed_files(
    extractor: &Extractor,
    images: &[SourceImage],
    image: &ImageOptions,
    options: &EmbedOptions,
    mut done: impl FnMut(usize, Result<FileVector>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let concurrency = extractor.engine().ready().await?.max_concurrent_images();
    let results = stream::iter(images)
        .enumerate()
        .map(|(index, source)| async move {
            (index, embed_file(extractor, source, image, options).await)
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
    source: &SourceImage,
    image: &ImageOptions,
    options: &EmbedOptions,
) -> Result<FileVector> {
    let file = source.read().await?;
    let hash = Sha256::digest(&file).into();
    let mut embeddings = extractor.embed(vec![file], image, options).await?;
    let embedding = embeddings.value.pop();
    let embedding = embedding.ok_or_else(|| Error::internal("no answer for an image"))?;
    Ok(FileVector {
        vector: embedding?.vector,
        is_dim: embeddings.stages.has_dim_image,
        hash,
    })
}
