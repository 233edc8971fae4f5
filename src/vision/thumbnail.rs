//! Thumbnails for lists of images.

use super::{ResampleFilter, RgbImage, Size, Window, jpeg, resample_rgb};
use crate::error::Result;

const QUALITY: i32 = 80;

/// Encodes a JPEG of the image whose longer side is `side` pixels. Smaller images keep their size.
pub fn thumbnail(image: &RgbImage, side: usize) -> Result<Vec<u8>> {
    let Size { width, height } = Size::of(image);
    let longer = width.max(height);
    if longer <= side {
        return jpeg::encode(image, QUALITY);
    }
    let scaled = |length: usize| ((length * side + longer / 2) / longer).max(1);
    let size = Size::new(scaled(width), scaled(height));
    let small = resample_rgb(image, size, ResampleFilter::Bicubic, Window::whole(size));
    jpeg::encode(&small, QUALITY)
}
