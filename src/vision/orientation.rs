//! Decoded images and the orientation that their files state.

use image::{DynamicImage, metadata::Orientation};

use super::{RgbImage, Size};

/// A decoded image.
#[derive(Debug)]
pub struct Decoded {
    /// Pixels.
    pub image: RgbImage,
    /// Size of the image in the file, which is larger if the image was decoded at reduced size.
    pub full_size: Size,
    /// How the image must be turned to stand upright.
    pub(super) orientation: Orientation,
}

impl From<RgbImage> for Decoded {
    fn from(image: RgbImage) -> Self {
        Self {
            full_size: Size::of(&image),
            image,
            orientation: Orientation::NoTransforms,
        }
    }
}

impl Decoded {
    /// Turns the image upright.
    pub(super) fn upright(self) -> Self {
        if self.orientation == Orientation::NoTransforms {
            return self;
        }
        let mut image = DynamicImage::ImageRgb8(self.image);
        image.apply_orientation(self.orientation);
        Self {
            image: image.into_rgb8(),
            full_size: turned(self.full_size, self.orientation),
            orientation: Orientation::NoTransforms,
        }
    }
}

/// Returns the size of an image after it is turned. Turning twice gives the first size again.
pub(super) fn turned(size: Size, orientation: Orientation) -> Size {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    match orientation {
        Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => size.swap(),
        _ => size,
    }
}

/// Reads the orientation from an EXIF block. Some writers put the marker of JPEG files in front of
/// the block.
pub(super) fn orientation_of(exif: &[u8]) -> Orientation {
    let block = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(block).unwrap_or(Orientation::NoTransforms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TIFF header, and a directory with the orientation alone.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut block = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
        block.extend([0, orientation, 0, 0, 0, 0, 0, 0]);
        block
    }

    #[test]
    fn orientations_5_to_8_swap_width_and_height() {
        let size = Size {
            width: 3,
            height: 2,
        };
        for orientation in 1..=8 {
            let found = orientation_of(&exif(orientation));
            assert_eq!(found.to_exif(), orientation);
            let expected = if orientation < 5 { size } else { size.swap() };
            assert_eq!(turned(size, found), expected, "orientation {orientation}");
            let decoded = Decoded {
                image: RgbImage::new(3, 2),
                full_size: size,
                orientation: found,
            };
            let upright = decoded.upright();
            assert_eq!(Size::of(&upright.image), expected);
            assert_eq!(upright.full_size, expected);
        }
    }

    #[test]
    fn other_bytes_have_no_orientation() {
        for bytes in [b"".as_slice(), b"Exif\0\0", &exif(0), &exif(9)] {
            assert_eq!(orientation_of(bytes), Orientation::NoTransforms);
        }
    }
}
