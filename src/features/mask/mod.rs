//! Masks of pixels, and their encodings: run lengths as in COCO, and polygons.

mod polygons;
mod rle;

pub use self::{polygons::polygons, rle::Rle};
use crate::vision::Size;

/// A mask of the pixels of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    size: Size,
    /// Row by row.
    pixels: Vec<bool>,
}

/// A box in pixels: left, top, right and bottom. The pixels of the last row and column lie within.
pub type PixelBox = [usize; 4];

impl Mask {
    /// Makes a mask of its pixels, row by row.
    ///
    /// # Panics
    /// If there are not as many pixels as the size has.
    pub fn new(size: Size, pixels: Vec<bool>) -> Self {
        assert_eq!(pixels.len() as u64, size.pixels(), "a value for each pixel");
        Self { size, pixels }
    }

    /// Returns the size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns the pixels, row by row.
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }

    /// Returns the number of pixels that are set.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|&&pixel| pixel).count()
    }

    /// Returns the smallest box around the pixels that are set; `None` if there are none.
    pub fn bounds(&self) -> Option<PixelBox> {
        let mut bounds: Option<PixelBox> = None;
        for (y, row) in self.pixels.chunks(self.size.width).enumerate() {
            let Some(left) = row.iter().position(|&pixel| pixel) else {
                continue;
            };
            let right = row.iter().rposition(|&pixel| pixel).unwrap_or(left) + 1;
            bounds = Some(match bounds {
                None => [left, y, right, y + 1],
                Some([x0, y0, x1, _]) => [x0.min(left), y0, x1.max(right), y + 1],
            });
        }
        bounds
    }

    /// Returns whether a pixel is set. Pixels outside are not.
    fn get(&self, x: isize, y: isize) -> bool {
        let Size { width, height } = self.size;
        let inside = (0..width as isize).contains(&x) && (0..height as isize).contains(&y);
        inside && self.pixels[y as usize * width + x as usize]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes a mask of lines in which `#` is set.
    pub(in crate::features::mask) fn mask(lines: &[&str]) -> Mask {
        let size = Size::new(lines[0].len(), lines.len());
        let pixels = lines.iter().flat_map(|line| line.bytes());
        Mask::new(size, pixels.map(|pixel| pixel == b'#').collect())
    }

    #[test]
    fn bounds_are_tight() {
        let mask = mask(&["......", "..#...", "...##.", "......"]);
        assert_eq!(mask.bounds(), Some([2, 1, 5, 3]));
        assert_eq!(mask.area(), 3);
        let empty = Mask::new(Size::new(2, 2), vec![false; 4]);
        assert_eq!(empty.bounds(), None);
    }
}
