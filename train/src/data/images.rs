//! The images of a source.

use std::path::Path;

use anyhow::bail;
use dinoserve::{
    error::{Error, Result},
    sources::{Listed, SkippedFiles, SourceImage, blocking},
    vision::{DecodeLimits, DecodeOptions, RgbImage, decode},
};

/// What a source lists.
#[derive(Debug, Clone, Default)]
pub struct ImageList {
    /// The images, in a fixed order.
    pub images: Vec<SourceImage>,
    /// What cannot be read, and why.
    pub unreadable: Vec<(String, String)>,
    /// Files that are no images.
    pub skipped: SkippedFiles,
}

/// Images with a label.
#[derive(Debug, Clone, Default)]
pub struct LabeledList {
    /// The images, in a fixed order.
    pub images: Vec<SourceImage>,
    /// The label of each.
    pub labels: Vec<String>,
    /// Images without a label.
    pub unlabeled: Vec<SourceImage>,
}

impl ImageList {
    /// Lists a folder, or any other source of `dinoserve embed`. Images of tar and Parquet files
    /// stay in memory.
    ///
    /// # Errors
    /// If the source cannot be read or has no images.
    pub fn read(source: &str) -> Result<Self> {
        let mut found = Self::default();
        for listed in blocking::list(&[source.to_owned()], None)? {
            match listed {
                Listed::Image(image) => found.images.push(*image),
                Listed::Failed { name, error } => found.unreadable.push((name, error.to_string())),
                Listed::Skipped { kind, advice, .. } => found.skipped.add(kind, advice),
            }
        }
        Ok(found)
    }

    /// Leaves out the files below a folder.
    pub fn without(mut self, folder: &Path) -> Self {
        let Ok(folder) = folder.canonicalize() else {
            return self;
        };
        self.images.retain(|image| {
            let path = image.path().and_then(|path| path.canonicalize().ok());
            !path.is_some_and(|path| path.starts_with(&folder))
        });
        self
    }

    /// Returns the images that have a label. `source` is their source, for messages.
    ///
    /// # Errors
    /// If no image has a label.
    pub fn labeled(self, source: &str) -> anyhow::Result<LabeledList> {
        let mut found = LabeledList::default();
        for image in self.images {
            match image.label.clone() {
                Some(label) => {
                    found.labels.push(label);
                    found.images.push(image);
                }
                None => found.unlabeled.push(image),
            }
        }
        if found.images.is_empty() {
            bail!("{source} has no subfolders with images; it needs one for each label");
        }
        Ok(found)
    }
}

/// Reads and decodes an image as the server does: upright by its EXIF orientation, and on white.
///
/// # Errors
/// If the file cannot be read or decoded.
pub fn read_image(image: &SourceImage) -> Result<RgbImage> {
    let bytes = blocking::read(image)?;
    // A decoder may panic on a damaged file; that is one bad image, not the end of a run.
    std::panic::catch_unwind(|| decode(&bytes, DecodeOptions::default(), DecodeLimits::default()))
        .unwrap_or_else(|_| Err(Error::internal("the decoder failed")))
}
