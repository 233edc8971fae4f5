//! Reads image files, and normalizes pixels for the network.

use std::path::Path;

use dinoserve::{
    error::{Error, Result},
    model::{Architecture, Normalization},
    vision::{DecodeLimits, DecodeOptions, RgbImage, decode},
};

/// Decodes an image file as the server does: upright by its EXIF orientation, and on white.
///
/// # Errors
/// [`dinoserve::error::Kind::Io`] if the file cannot be read; otherwise those of [`decode`].
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|error| Error::io("reading", error))?;
    // A decoder may panic on a damaged file; that is one bad image, not the end of a run.
    std::panic::catch_unwind(|| decode(&bytes, DecodeOptions::default(), DecodeLimits::default()))
        .unwrap_or_else(|_| Err(Error::internal("the decoder failed")))
}

/// Appends an image to `out` as `[3, height, width]`: values scaled to 0..1, less the mean of the
/// channel, divided by its standard deviation.
pub fn append_normalized(image: &RgbImage, out: &mut Vec<f32>) {
    let Normalization { mean, std } = Architecture::DINOV2_SMALL.normalization;
    for channel in 0..3 {
        let scale = (1.0 / (255.0 * std[channel])) as f32;
        let shift = (-mean[channel] / std[channel]) as f32;
        let values = image.as_raw().iter().skip(channel).step_by(3);
        out.extend(values.map(|&byte| f32::from(byte) * scale + shift));
    }
}
