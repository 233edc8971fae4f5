//! Masks of pixels, and their encodings: run lengths as in COCO, and outlines.

mod classes;
mod outlines;
mod rle;

pub use self::{
    classes::{IGNORED, class_mask, class_mask_size},
    outlines::{Ring, outlines},
    rle::Rle,
};
use crate::vision::Size;

/// A label for each pixel of an image. Label 0 is the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelImage {
    size: Size,
    /// Row by row.
    labels: Vec<u8>,
}

/// A box in pixels: left, top, right and bottom. The pixels of the last row and column lie within.
pub type PixelBox = [usize; 4];

/// The pixels of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The smallest box around them.
    pub bounds: PixelBox,
    /// Their number.
    pub area: usize,
}

impl LabelImage {
    /// Makes an image of its labels, row by row.
    ///
    /// # Panics
    /// If there are not as many labels as the size has pixels.
    pub fn new(size: Size, labels: Vec<u8>) -> Self {
        assert_eq!(labels.len() as u64, size.pixels(), "a label for each pixel");
        Self { size, labels }
    }

    /// Returns the size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns the labels, row by row.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Returns the extents of the labels 1 to `count`; `None` for one that no pixel has.
    pub fn extents(&self, count: usize) -> Vec<Option<Extent>> {
        let mut extents: Vec<Option<Extent>> = vec![None; count];
        for (y, row) in self.labels.chunks(self.size.width).enumerate() {
            let mut x = 0;
            for run in row.chunk_by(|one, other| one == other) {
                let (left, right) = (x, x + run.len());
                x = right;
                let label = usize::from(run[0]);
                if label == 0 || label > count {
                    continue;
                }
                let extent = extents[label - 1].get_or_insert(Extent {
                    bounds: [left, y, right, y + 1],
                    area: 0,
                });
                let [x0, y0, x1, _] = extent.bounds;
                extent.bounds = [x0.min(left), y0, x1.max(right), y + 1];
                extent.area += run.len();
            }
        }
        extents
    }

    /// Changes each label to its number in `numbers`.
    pub fn renumber(&mut self, numbers: &[u8]) {
        for label in &mut self.labels {
            *label = numbers[usize::from(*label)];
        }
    }

    /// Returns whether a pixel has a label. Pixels outside have none.
    fn has(&self, label: u8, x: isize, y: isize) -> bool {
        let Size { width, height } = self.size;
        let inside = (0..width as isize).contains(&x) && (0..height as isize).contains(&y);
        inside && self.labels[y as usize * width + x as usize] == label
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes an image of lines in which `#` is label 1, and digits are labels.
    pub(in crate::features::mask) fn image(lines: &[&str]) -> LabelImage {
        let size = Size::new(lines[0].len(), lines.len());
        let pixels = lines.iter().flat_map(|line| line.bytes());
        let label = |pixel: u8| match pixel {
            b'#' => 1,
            b'0'..=b'9' => pixel - b'0',
            _ => 0,
        };
        LabelImage::new(size, pixels.map(label).collect())
    }

    #[test]
    fn extents_are_tight() {
        let image = image(&["......", "..#..3", "...##.", "......"]);
        let expected = [
            Some(Extent {
                bounds: [2, 1, 5, 3],
                area: 3,
            }),
            None,
            Some(Extent {
                bounds: [5, 1, 6, 2],
                area: 1,
            }),
        ];
        assert_eq!(image.extents(3), expected);
    }
}
