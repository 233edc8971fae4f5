//! What the commands share that learn from images: reading the images, the progress, and the files
//! in which the result is kept.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;

use crate::{
    error::Result,
    model::ModelId,
    service::{Extractor, MaskedImage},
    sources::{Listing, SourceImage},
};

/// Finds the images of sources, all of which must be readable.
pub(super) async fn find_all(sources: &[String]) -> anyhow::Result<Vec<SourceImage>> {
    let listed = Listing::open(sources, None).await?.list_all().await?;
    match listed.failures.into_iter().next() {
        Some((name, error)) => Err(error).context(name),
        None => Ok(listed.images),
    }
}

/// Reads an image to learn from.
pub(super) async fn read_owned(image: SourceImage) -> Result<Bytes> {
    image.read().await
}

/// Rejects a file that was made with another model than the one that runs.
pub(super) fn check_model(
    made_with: &ModelId,
    extractor: &Extractor,
    file: &Path,
) -> anyhow::Result<()> {
    let holder = format_args!("{} holds", file.display());
    let advice = "make the file again with this one";
    Ok(made_with.require(extractor.id(), holder, advice)?)
}

/// Images with masks, in two folders.
#[derive(Debug, Args)]
pub(in crate::cli) struct MaskFolders {
    /// Folder, or another source, of the images to learn from
    #[arg(long, value_name = "SOURCE")]
    pub(in crate::cli) images: String,

    /// Folder, or another source, of their masks: `a.png` for the image `a.jpg`, at the same place
    /// within the folder; the value of a pixel is its class, and 255 is left out
    #[arg(long, value_name = "SOURCE")]
    pub(in crate::cli) masks: String,
}

/// The files of an image and of its mask.
#[derive(Debug, Clone)]
pub(in crate::cli) struct MaskedFile {
    pub(in crate::cli) image: SourceImage,
    pub(in crate::cli) mask: SourceImage,
}

impl MaskFolders {
    /// Finds the images with their masks.
    pub(in crate::cli) async fn find(&self) -> anyhow::Result<Vec<MaskedFile>> {
        masked_files(&self.images, &self.masks).await
    }
}

/// Finds the images of a source with their masks in another. Each must have one.
pub(in crate::cli) async fn masked_files(
    images: &str,
    masks: &str,
) -> anyhow::Result<Vec<MaskedFile>> {
    let files = find_all(&[images.to_owned()]).await?;
    let mut by_stem: BTreeMap<OsString, SourceImage> = BTreeMap::new();
    for mask in find_all(&[masks.to_owned()]).await? {
        let origin = mask.origin.clone();
        if let Some(other) = by_stem.insert(stem_of(&mask.id), mask) {
            bail!(
                "{} and {origin} are masks of one image; leave one of them out",
                other.origin
            );
        }
    }
    let mut masked: Vec<MaskedFile> = Vec::with_capacity(files.len());
    for image in files {
        // `a.jpg.png`, or `a.png`.
        let whole = OsString::from(&image.id);
        let stem = stem_of(&image.id);
        let mask = by_stem.remove(&whole).or_else(|| by_stem.remove(&stem));
        let expected = |stem: &OsString| {
            let name = Path::new(stem).with_added_extension("png");
            format!("{}/{}", masks.trim_end_matches('/'), name.display())
        };
        let Some(mask) = mask else {
            let is_alike = |other: &&MaskedFile| stem_of(&other.image.id) == stem;
            if let Some(other) = masked.iter().find(is_alike) {
                bail!(
                    "{} and {} have one mask, {}; give each image one, such as {}",
                    other.image.origin,
                    image.origin,
                    other.mask.origin,
                    expected(&whole)
                );
            }
            bail!("{} has no mask; expected {}", image.origin, expected(&stem));
        };
        masked.push(MaskedFile { image, mask });
    }
    if let Some(mask) = by_stem.values().next() {
        bail!("{} is the mask of no image", mask.origin);
    }
    Ok(masked)
}

fn stem_of(id: &str) -> OsString {
    Path::new(id).with_extension("").into_os_string()
}

impl MaskedFile {
    /// Reads both files.
    pub(in crate::cli) async fn read(self) -> Result<MaskedImage> {
        Ok(MaskedImage {
            image: read_owned(self.image).await?,
            mask: read_owned(self.mask).await?,
        })
    }
}
