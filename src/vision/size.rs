//! Sizes of images, in pixels and in patches.

use serde::{Deserialize, Serialize};

use super::RgbImage;

/// Size of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
}

impl Size {
    /// Returns the size with these sides, in pixels.
    pub const fn new(width: usize, height: usize) -> Self {
        Self { width, height }
    }

    /// Returns the size of a square.
    pub const fn square(side: usize) -> Self {
        Self::new(side, side)
    }

    /// Returns the size of `image`.
    pub fn of(image: &RgbImage) -> Self {
        Self::new(image.width() as usize, image.height() as usize)
    }

    /// Returns the number of pixels.
    pub const fn pixels(self) -> u64 {
        (self.width as u64).saturating_mul(self.height as u64)
    }

    /// Exchanges width and height.
    pub fn swap(self) -> Self {
        Self::new(self.height, self.width)
    }

    /// Whether an image of this size can be cut out of one of size `other`.
    pub fn fits(self, other: Self) -> bool {
        self.width <= other.width && self.height <= other.height
    }
}

/// Side of a square patch, in pixels; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct PatchSize(usize);

impl PatchSize {
    /// Makes a patch size.
    ///
    /// # Panics
    /// For 0 pixels; [`TryFrom`] is for values that were not checked.
    pub const fn new(pixels: usize) -> Self {
        assert!(pixels > 0, "a patch has pixels");
        Self(pixels)
    }

    /// Returns the side in pixels.
    pub const fn pixels(self) -> usize {
        self.0
    }

    /// Returns the largest multiple of the patch size that is at most `length`.
    pub fn round_down(self, length: usize) -> usize {
        length / self.0 * self.0
    }

    /// Returns the grid of whole patches in an image of `size`.
    pub fn grid(self, size: Size) -> Grid {
        Grid {
            height: size.height / self.0,
            width: size.width / self.0,
        }
    }
}

impl TryFrom<usize> for PatchSize {
    type Error = &'static str;

    fn try_from(pixels: usize) -> Result<Self, Self::Error> {
        match pixels {
            0 => Err("a patch must have at least 1 pixel"),
            _ => Ok(Self(pixels)),
        }
    }
}

impl From<PatchSize> for usize {
    fn from(patch: PatchSize) -> Self {
        patch.0
    }
}

/// Size of an image, in patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Patches from top to bottom.
    pub height: usize,
    /// Patches from left to right.
    pub width: usize,
}

impl Grid {
    /// Returns the number of patches.
    pub fn patches(self) -> usize {
        self.height * self.width
    }

    /// Returns the size in pixels.
    pub fn pixels(self, patch: PatchSize) -> Size {
        Size::new(self.width * patch.pixels(), self.height * patch.pixels())
    }
}
