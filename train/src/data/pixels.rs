//! Image files to pixels, and pixels to what a network takes.

use std::path::Path;

use dinoserve::{
    error::{Error, Result},
    vision::{DecodeLimits, DecodeOptions, MEAN, RgbImage, STD, decode},
};

/// Decodes an image file as the server does, by its orientation and on white.
///
/// # Errors
/// [`dinoserve::error::Kind::Io`] if it cannot be read, and as [`decode`].
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|error| Error::io("reading", error))?;
    // A decoder may panic on a damaged file; that is one bad image, not the end of a run.
    std::panic::catch_unwind(|| decode(&bytes, DecodeOptions::default(), DecodeLimits::default()))
        .unwrap_or_else(|_| Err(Error::internal("the decoder failed")))
}

/// Appends an image to a batch as `[3, height, width]`: 0..1 by channel, mean off, divided by the
/// deviation.
pub fn normalized(image: &RgbImage, out: &mut Vec<f32>) {
    for channel in 0..3 {
        let (scale, shift) = (
            (1.0 / (255.0 * STD[channel])) as f32,
            (-MEAN[channel] / STD[channel]) as f32,
        );
        out.extend(
            image
                .as_raw()
                .iter()
                .skip(channel)
                .step_by(3)
                .map(|&byte| f32::from(byte) * scale + shift),
        );
    }
}
