//! Rows of pixels, which the horizontal pass of resampling reads in blocks.

use image::metadata::Orientation;

use super::Size;

/// Rows that are read together; 16 rows of RGB are 48 contiguous bytes, or one and a half AVX2
/// lanes of i32.
pub(super) const ROWS: usize = 16;

/// An image in RGB, as stored.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    pub(super) data: &'a [u8],
    pub(super) width: usize,
    pub(super) height: usize,
}

impl<'a> Plane<'a> {
    /// Wraps whole rows of `width` RGB pixels.
    pub(super) fn new(data: &'a [u8], width: usize) -> Self {
        let height = data.len() / (3 * width).max(1);
        Self {
            data,
            width,
            height,
        }
    }

    pub(super) fn rows(self, first: usize, count: usize) -> &'a [u8] {
        &self.data[first * self.width * 3..(first + count) * self.width * 3]
    }

    pub(super) fn band(self, first: usize, count: usize) -> Self {
        Self::new(self.rows(first, count), self.width)
    }
}

/// Rows of an image that can be read in blocks.
pub(super) trait Rows {
    /// Returns the size of all rows.
    fn size(&self) -> Size;

    /// Copies `count` rows from `first` on, transposed: the pixels of a column are contiguous.
    fn transpose(&self, first: usize, count: usize, columns: &mut [[u8; ROWS * 3]]);
}

impl Rows for Plane<'_> {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }

    #[inline(always)]
    fn transpose(&self, first: usize, count: usize, columns: &mut [[u8; ROWS * 3]]) {
        for row in 0..count {
            let pixels = self.rows(first + row, 1).as_chunks::<3>().0;
            for (column, pixel) in columns.iter_mut().zip(pixels) {
                column[row * 3..row * 3 + 3].copy_from_slice(pixel);
            }
        }
    }
}

/// Rows of an image that is to be turned by a quarter; they are the columns of what is stored.
pub(super) struct Quarter<'a> {
    /// Image as stored.
    plane: Plane<'a>,
    orientation: Orientation,
    /// First row.
    first: usize,
    /// Number of rows.
    count: usize,
}

impl<'a> Quarter<'a> {
    /// Takes `count` rows from `first` on.
    pub(super) fn new(
        plane: Plane<'a>,
        orientation: Orientation,
        first: usize,
        count: usize,
    ) -> Self {
        Self {
            plane,
            orientation,
            first,
            count,
        }
    }
}

impl Rows for Quarter<'_> {
    fn size(&self) -> Size {
        Size::new(self.plane.height, self.count)
    }

    #[inline(always)]
    fn transpose(&self, first: usize, count: usize, columns: &mut [[u8; ROWS * 3]]) {
        use Orientation::{Rotate90, Rotate270, Rotate270FlipH};
        let Plane { width, height, .. } = self.plane;
        let first = self.first + first;
        let from_bottom = matches!(self.orientation, Rotate90 | Rotate270FlipH);
        let from_right = matches!(self.orientation, Rotate270 | Rotate270FlipH);
        for (x, column) in columns.iter_mut().enumerate() {
            let y = if from_bottom { height - 1 - x } else { x };
            let stored = self.plane.rows(y, 1).as_chunks::<3>().0;
            let (target, _) = column.as_chunks_mut::<3>();
            if from_right {
                let pixels = &stored[width - first - count..width - first];
                for (target, pixel) in target.iter_mut().zip(pixels.iter().rev()) {
                    *target = *pixel;
                }
            } else {
                target[..count].copy_from_slice(&stored[first..first + count]);
            }
        }
    }
}
