//! Limits on the size of images, which are checked before any pixel is allocated.

use super::Size;
use crate::error::{Error, Kind, Result};

/// Sizes above which an image is rejected.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Maximum number of pixels (width × height) of up to four bytes; fewer of larger ones.
    pub max_pixels: u64,
    /// Maximum length of a side, in pixels. Resampling a longer side would take memory out of
    /// proportion to its pixels.
    pub max_side: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_pixels: 120_000_000,
            max_side: 65_535,
        }
    }
}

impl DecodeLimits {
    /// Rejects an image without pixels, and one above a limit.
    ///
    /// # Errors
    /// [`Kind::UndecodableImage`] for an empty image, [`Kind::TooLarge`] above a limit.
    pub fn check(self, Size { width, height }: Size) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::new(
                Kind::UndecodableImage,
                format!("the image has no pixels: it is {width}×{height}"),
            ));
        }
        let pixels = (width as u64).saturating_mul(height as u64);
        if pixels > self.max_pixels {
            return Err(self.too_many_pixels(format!(
                "the image is {width}×{height} = {pixels} pixels, more than the limit of {}; \
                 send it smaller",
                self.max_pixels
            )));
        }
        if width.max(height) as u64 > self.max_side {
            let detail = format!(
                "the image is {width}×{height}, a side longer than the limit of {}; \
                 send it smaller",
                self.max_side
            );
            return Err(Error::new(Kind::TooLarge, detail).with_limit(
                "max_image_side",
                self.max_side,
                "--max-image-side",
            ));
        }
        Ok(())
    }

    /// Rejects samples that take more memory than the maximum number of pixels with four bytes
    /// each.
    pub(super) fn check_depth(self, pixels: u64, bytes: u64) -> Result<()> {
        if bytes <= self.max_pixels.saturating_mul(4) {
            return Ok(());
        }
        Err(self.too_many_pixels(format!(
            "the image has {pixels} pixels of {} bytes, and the limit is {} of 4 bytes; \
             send it smaller, or with 8 bits a sample",
            bytes / pixels.max(1),
            self.max_pixels
        )))
    }

    fn too_many_pixels(self, detail: String) -> Error {
        Error::new(Kind::TooLarge, detail).with_limit(
            "max_image_pixels",
            self.max_pixels,
            "--max-image-pixels",
        )
    }
}
