//! The images of a source.

use anyhow::bail;
use dinoserve::{
    error::{Error, Result},
    sources::{ListedImages, SourceImage, blocking},
    vision::{DecodeLimits, DecodeOptions, RgbImage, decode},
};

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

/// Lists a folder, or any other source of `dinoserve embed`. Images of tar and Parquet files stay
/// in memory.
///
/// # Errors
/// If the source cannot be read or has no images.
pub fn list_images(source: &str) -> Result<ListedImages> {
    blocking::list(&[source.to_owned()], None)
}

impl LabeledList {
    /// Takes the images that have a label. `source` is their source, for messages.
    ///
    /// # Errors
    /// If no image has a label.
    pub fn new(images: Vec<SourceImage>, source: &str) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for image in images {
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
