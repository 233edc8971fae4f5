//! Small pictures for lists.

use super::{ResampleFilter, RgbImage, Window, jpeg, resample_rgb};
use crate::error::Result;

const QUALITY: i32 = 80;

/// A JPEG of the photograph whose longer side is `side` pixels, or that of a photograph which is
/// smaller.
///
/// # Errors
/// [`crate::error::Kind::Internal`] if the encoder fails.
pub fn thumbnail(photo: &RgbImage, side: usize) -> Result<Vec<u8>> {
    let (width, height) = (photo.width() as usize, photo.height() as usize);
    let longer = width.max(height);
    if longer <= side {
        return jpeg::encode(photo, QUALITY);
    }
    let scaled = |length: usize| ((length * side + longer / 2) / longer).max(1);
    let (width, height) = (scaled(width), scaled(height));
    let whole = Window {
        x: 0,
        y: 0,
        width,
        height,
    };
    jpeg::encode(
        &resample_rgb(photo, (width, height), ResampleFilter::Bicubic, whole),
        QUALITY,
    )
}
