//! What the commands share that learn from images: reading the images, the progress, and the files
//! in which the result is kept.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;

use super::read;
use crate::{
    cli::{
        image_files::{NamedFile, Sources},
        progress::{self, Unit},
    },
    error::Result,
    features::progress::{Progress, Stage},
    model::ModelId,
    service::{Extractor, MaskedImage},
};

/// Returns what shows the progress of a training.
pub(in crate::cli) fn show_progress() -> impl Fn(Progress) -> bool + Send + Sync + 'static {
    let bar = Mutex::new(progress::Progress::new(Unit::Items));
    move |Progress { stage, done, total }| {
        let step = match stage {
            Stage::Reading => "reading",
            Stage::Choosing => "choosing patches",
            Stage::Calibrating => "calibrating",
            Stage::Validating => "cross-validating",
            Stage::Fitting => "fitting",
        };
        if let Ok(mut bar) = bar.lock() {
            bar.show(step, done as u64, total.map(|total| total as u64));
        }
        true
    }
}

/// Finds the images of a folder, all of which must be readable.
pub(super) fn find_all(folder: &Path) -> anyhow::Result<Vec<NamedFile>> {
    let found = Sources::find(folder)?;
    if let Some((name, error)) = found.unreadable.into_iter().next() {
        return Err(error).with_context(|| name);
    }
    Ok(found.files)
}

/// Reads a file to learn from.
pub(super) async fn read_owned(path: PathBuf) -> Result<Bytes> {
    read(&path).await
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
    /// Folder of the images to learn from
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) images: PathBuf,

    /// Folder of their masks: `a.png` for the image `a.jpg`, at the same place within the folder;
    /// the value of a pixel is its class, and 255 is left out
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) masks: PathBuf,
}

/// The files of an image and of its mask.
#[derive(Debug, Clone)]
pub(in crate::cli) struct MaskedFile {
    pub(in crate::cli) image: PathBuf,
    pub(in crate::cli) mask: PathBuf,
}

impl MaskFolders {
    /// Finds the images with their masks.
    pub(in crate::cli) fn find(&self) -> anyhow::Result<Vec<MaskedFile>> {
        masked_files(&self.images, &self.masks)
    }
}

/// Finds the images of a folder with their masks in another. Each must have one.
pub(in crate::cli) fn masked_files(images: &Path, masks: &Path) -> anyhow::Result<Vec<MaskedFile>> {
    let files = find_all(images)?;
    let mut by_stem: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for mask in find_all(masks)? {
        let stem = Path::new(&mask.name).with_extension("").into_os_string();
        if let Some(other) = by_stem.insert(stem, mask.path.clone()) {
            bail!(
                "{} and {} are masks of one image; leave one of them out",
                other.display(),
                mask.path.display()
            );
        }
    }
    let mut masked: Vec<MaskedFile> = Vec::with_capacity(files.len());
    for NamedFile { name, path } in files {
        // `a.jpg.png`, or `a.png`.
        let whole = OsString::from(&name);
        let stem = Path::new(&name).with_extension("").into_os_string();
        let mask = by_stem.remove(&whole).or_else(|| by_stem.remove(&stem));
        let Some(mask) = mask else {
            let is_alike =
                |other: &&MaskedFile| other.image.with_extension("") == path.with_extension("");
            if let Some(other) = masked.iter().find(is_alike) {
                bail!(
                    "{} and {} have one mask, {}; give each image one, such as {}",
                    other.image.display(),
                    path.display(),
                    other.mask.display(),
                    masks.join(&whole).with_added_extension("png").display()
                );
            }
            let expected = masks.join(&stem).with_added_extension("png");
            bail!(
                "{} has no mask; expected {}",
                path.display(),
                expected.display()
            );
        };
        masked.push(MaskedFile { image: path, mask });
    }
    if let Some(mask) = by_stem.values().next() {
        bail!("{} is the mask of no image", mask.display());
    }
    Ok(masked)
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
