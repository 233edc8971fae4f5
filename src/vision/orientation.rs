//! Decoded images and the orientation that their files state.

use image::{
    imageops::{
        flip_horizontal_in_place, flip_vertical_in_place, rotate90, rotate180_in_place, rotate270,
    },
    metadata::Orientation,
};

use super::{RgbImage, Size};

/// A decoded image. One that must be turned by a quarter is kept as its file stores it, because a
/// turned copy would take as much memory again.
#[derive(Debug)]
pub struct Decoded {
    /// Pixels.
    pub(super) image: RgbImage,
    /// Upright size of the image in the file, which is larger if the image was decoded at reduced
    /// size.
    pub full_size: Size,
    /// How the image must be turned to stand upright.
    pub(super) orientation: Orientation,
    /// Whether samples with 16 bits all stay below 2^14, so that the image is nearly black.
    pub is_dim: bool,
}

impl Decoded {
    /// Turns the image upright where that takes no copy.
    pub(super) fn with_orientation(mut self, orientation: Orientation) -> Self {
        match orientation {
            Orientation::FlipHorizontal => flip_horizontal_in_place(&mut self.image),
            Orientation::FlipVertical => flip_vertical_in_place(&mut self.image),
            Orientation::Rotate180 => rotate180_in_place(&mut self.image),
            quarter => {
                self.full_size = turned(self.full_size, quarter);
                self.orientation = quarter;
            }
        }
        self
    }

    /// Returns the upright image.
    pub fn into_upright(self) -> RgbImage {
        upright(&self.image, self.orientation).unwrap_or(self.image)
    }
}

/// Returns a copy of an image that is turned by a quarter; `None` for other orientations.
pub(super) fn upright(image: &RgbImage, orientation: Orientation) -> Option<RgbImage> {
    let mirrored = |mut image| {
        flip_horizontal_in_place(&mut image);
        image
    };
    match orientation {
        Orientation::Rotate90 => Some(rotate90(image)),
        Orientation::Rotate270 => Some(rotate270(image)),
        Orientation::Rotate90FlipH => Some(mirrored(rotate90(image))),
        Orientation::Rotate270FlipH => Some(mirrored(rotate270(image))),
        _ => None,
    }
}

/// Whether an orientation turns an image by a quarter, and exchanges its sides.
pub(super) fn is_quarter(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(
        orientation,
        Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH
    )
}

/// Returns the size of an image after it is turned. Turning twice gives the first size again.
pub(super) fn turned(size: Size, orientation: Orientation) -> Size {
    if is_quarter(orientation) {
        size.swap()
    } else {
        size
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// The order of the six pixels of a 3×2 image after Pillow's `exif_transpose`.
    #[test]
    fn every_orientation_is_turned_as_in_pillow() {
        for (orientation, size, expected) in [
            (1, (3, 2), [0, 1, 2, 3, 4, 5]),
            (2, (3, 2), [2, 1, 0, 5, 4, 3]),
            (3, (3, 2), [5, 4, 3, 2, 1, 0]),
            (4, (3, 2), [3, 4, 5, 0, 1, 2]),
            (5, (2, 3), [0, 3, 1, 4, 2, 5]),
            (6, (2, 3), [3, 0, 4, 1, 5, 2]),
            (7, (2, 3), [5, 2, 4, 1, 3, 0]),
            (8, (2, 3), [2, 5, 1, 4, 0, 3]),
        ] {
            let orientation = Orientation::from_exif(orientation).expect("one of eight");
            let decoded = Decoded {
                image: RgbImage::from_fn(3, 2, |x, y| Rgb([(x + 3 * y) as u8; 3])),
                full_size: Size::new(3, 2),
                orientation: Orientation::NoTransforms,
                is_dim: false,
            };
            let decoded = decoded.with_orientation(orientation);
            assert_eq!(decoded.full_size, Size::new(size.0, size.1));
            let image = decoded.into_upright();
            assert_eq!(Size::of(&image), Size::new(size.0, size.1));
            let order: Vec<u8> = image.pixels().map(|pixel| pixel[0]).collect();
            assert_eq!(order, expected, "{orientation:?}");
        }
    }
}
