//! Image files between their header and their pixels.

use image::{DynamicImage, metadata::Orientation};

use super::{
    Background, Decoded, Levels, Size,
    color::{Colors, to_rgb},
};
use crate::error::Result;

/// Gives the minimum size to decode to for the upright size of the whole image.
pub(super) type MinSize<'a> = &'a dyn Fn(Size) -> Size;

/// A file whose header has been read and checked.
pub(super) struct Opened<'a> {
    /// Size of the image as stored.
    pub(super) full_size: Size,
    /// How the decoded image must be turned to stand upright.
    pub(super) orientation: Orientation,
    /// Memory that decoding takes at its peak, in bytes.
    pub(super) memory: u64,
    /// Decodes the image as stored.
    pub(super) decode: Box<dyn FnOnce() -> Result<Decoded> + 'a>,
}

impl Opened<'_> {
    /// Decodes the image, and turns it where that takes no copy.
    pub(super) fn decode(self) -> Result<Decoded> {
        Ok((self.decode)()?.with_orientation(self.orientation))
    }
}

/// A file like [`Opened`], whose decoder gives samples that are not RGB yet.
pub(super) struct Samples<'a> {
    /// Size of the image as stored.
    pub(super) full_size: Size,
    /// How the decoded image must be turned to stand upright.
    pub(super) orientation: Orientation,
    /// Memory of the decoded samples, in bytes.
    pub(super) decoded_bytes: u64,
    /// Memory that the decoder takes in addition, at its peak, in bytes.
    pub(super) working_bytes: u64,
    /// Decodes the samples.
    pub(super) read: Box<dyn FnOnce() -> Result<DynamicImage> + 'a>,
}

impl<'a> Samples<'a> {
    /// Adds the conversion to RGB.
    pub(super) fn with_colors(self, background: Background, levels: Levels) -> Opened<'a> {
        let rgb_bytes = 3 * self.full_size.pixels();
        // Samples of three bytes a pixel are RGB already.
        let converted_bytes = match self.decoded_bytes == rgb_bytes {
            true => 0,
            false => rgb_bytes,
        };
        let read = self.read;
        Opened {
            full_size: self.full_size,
            orientation: self.orientation,
            memory: self.decoded_bytes + self.working_bytes.max(converted_bytes),
            decode: Box::new(move || {
                let Colors { image, is_dim } = to_rgb(read()?, background, levels);
                Ok(Decoded {
                    full_size: Size::of(&image),
                    image,
                    orientation: Orientation::NoTransforms,
                    is_dim,
                })
            }),
        }
    }
}
