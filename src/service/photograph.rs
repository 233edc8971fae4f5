//! Values on the model's input, brought to the pixels of the photograph.

use crate::{
    features::mask::LabelImage,
    vision::{Placement, Size},
};

/// Values on the model's input, in which objects or classes compete for pixels.
pub(super) struct Fields<'a> {
    /// For each of them the values, row by row.
    pub(super) values: &'a [Vec<f32>],
    /// Number of values across and down.
    pub(super) size: Size,
    /// Side of the square of the input that a value stands for, in pixels.
    pub(super) cell: f64,
    /// Value above which a pixel belongs to a field.
    pub(super) floor: f32,
    /// Whether a pixel takes the value of the nearest one, without interpolation.
    pub(super) is_sharp: bool,
}

impl Fields<'_> {
    /// Labels the pixels of the input: 1 and up for the field with the largest value above the
    /// floor, and 0 where there is none.
    pub(super) fn of_input(&self) -> LabelImage {
        let scaled = |count: usize| (count as f64 * self.cell).round() as usize;
        let size = Size::new(scaled(self.size.width), scaled(self.size.height));
        let labels = self.labels(&self.raster(size, |x| x, |y| y));
        LabelImage::new(size, labels)
    }

    /// Labels the pixels of the upright photograph as [`Self::of_input`] does. Those outside of
    /// `seen` have label 0.
    pub(super) fn of_photograph(&self, placement: &Placement, seen: Seen) -> LabelImage {
        let mut labels = self.labels(&self.over(placement));
        seen.clear_outside(&mut labels, placement.image.width, 0);
        LabelImage::new(placement.image, labels)
    }

    /// Returns the values of each field at the pixels of the upright photograph, row by row. Those
    /// outside of `seen` are 0.
    pub(super) fn values_of_photograph(&self, placement: &Placement, seen: Seen) -> Vec<f32> {
        let raster = self.over(placement);
        let width = placement.image.width;
        let pixels = width * placement.image.height;
        let mut line = vec![0.0; self.size.width];
        let mut values = vec![0.0; pixels * self.values.len()];
        for (field, values) in self.values.iter().zip(values.chunks_mut(pixels)) {
            for (rows, to) in raster.rows.iter().zip(values.chunks_mut(width)) {
                rows.blend(field, &mut line);
                let pixels = raster.columns.iter().zip(to);
                pixels.for_each(|(place, to)| *to = place.of(&line));
            }
            seen.clear_outside(values, width, 0.0);
        }
        values
    }

    fn over(&self, placement: &Placement) -> Raster {
        let across = |x| placement.to_input([x, 0.0])[0];
        let down = |y| placement.to_input([0.0, y])[1];
        self.raster(placement.image, across, down)
    }

    /// `across` and `down` say where a pixel lies in the input, in whose coordinates the center of
    /// the first pixel is 0.5. Beyond the input, its border is repeated.
    fn raster(&self, size: Size, across: impl Fn(f64) -> f64, down: impl Fn(f64) -> f64) -> Raster {
        let between = |at: f64, count| Between::new(at / self.cell, count, self.is_sharp);
        let columns = (0..size.width).map(|x| between(across(x as f64 + 0.5), self.size.width));
        let rows = (0..size.height).map(|y| between(down(y as f64 + 0.5), self.size.height));
        Raster {
            columns: columns.collect(),
            rows: rows.collect(),
        }
    }

    fn labels(&self, raster: &Raster) -> Vec<u8> {
        let width = raster.columns.len();
        let mut labels = vec![0; width * raster.rows.len()];
        let mut line = vec![0.0; self.size.width];
        let mut best = vec![self.floor; width];
        for (rows, winners) in raster.rows.iter().zip(labels.chunks_mut(width)) {
            best.fill(self.floor);
            for (index, field) in self.values.iter().enumerate() {
                rows.blend(field, &mut line);
                let pixels = best.iter_mut().zip(&mut *winners);
                for (place, (best, winner)) in raster.columns.iter().zip(pixels) {
                    let value = place.of(&line);
                    if value > *best {
                        *best = value;
                        *winner = index as u8 + 1;
                    }
                }
            }
        }
        labels
    }
}

/// Where the pixels of an image lie among the values of a field.
struct Raster {
    columns: Vec<Between>,
    rows: Vec<Between>,
}

/// The part of a photograph for which the model's input stands, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) right: usize,
    pub(super) bottom: usize,
}

impl Seen {
    /// Returns the part of the photograph that the model saw. Where less than a patch, of `patch`
    /// pixels, was cut off, it is as if the model had seen the edge.
    pub(super) fn new(placement: &Placement, patch: usize) -> Self {
        let Placement {
            image,
            resized,
            window,
        } = placement;
        let end = [window.x + window.width, window.y + window.height];
        let [left, top] = placement.to_image([0.0, 0.0]);
        let [right, bottom] = placement.to_image([window.width as f64, window.height as f64]);
        let first = |cut: usize, at: f64| if cut < patch { 0 } else { at.round() as usize };
        let last = |cut: usize, at: f64, all: usize| match cut < patch {
            true => all,
            false => (at.round() as usize).min(all),
        };
        Self {
            left: first(window.x, left),
            top: first(window.y, top),
            right: last(resized.width - end[0], right, image.width),
            bottom: last(resized.height - end[1], bottom, image.height),
        }
    }

    /// Fills the pixels of an image that lie outside with `value`.
    fn clear_outside<T: Copy>(&self, pixels: &mut [T], width: usize, value: T) {
        for (y, row) in pixels.chunks_mut(width).enumerate() {
            let is_inside = (self.top..self.bottom).contains(&y);
            let (left, right) = if is_inside {
                (self.left, self.right)
            } else {
                (0, 0)
            };
            row[..left].fill(value);
            row[right..].fill(value);
        }
    }
}

/// Two values around a place in a line, and the share of the second.
struct Between {
    low: usize,
    high: usize,
    share: f32,
}

impl Between {
    /// `at` is continuous: the center of the first value is 0.5.
    fn new(at: f64, count: usize, is_sharp: bool) -> Self {
        let last = count - 1;
        if is_sharp {
            let nearest = (at.max(0.0) as usize).min(last);
            return Self {
                low: nearest,
                high: nearest,
                share: 0.0,
            };
        }
        let at = (at - 0.5).clamp(0.0, last as f64);
        let low = at as usize;
        Self {
            low,
            high: (low + 1).min(last),
            share: (at - low as f64) as f32,
        }
    }

    /// Writes the row between two rows of a field.
    fn blend(&self, field: &[f32], line: &mut [f32]) {
        let width = line.len();
        let row = |row: usize| &field[row * width..][..width];
        let pairs = row(self.low).iter().zip(row(self.high));
        for (value, (low, high)) in line.iter_mut().zip(pairs) {
            *value = low + self.share * (high - low);
        }
    }

    /// Returns the value between two of a line.
    fn of(&self, line: &[f32]) -> f32 {
        let (low, high) = (line[self.low], line[self.high]);
        low + self.share * (high - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::Window;

    /// The model sees the middle 4×4 of 6×4 pixels, of an image of twice the size.
    const PLACEMENT: Placement = Placement {
        image: Size::new(12, 8),
        resized: Size::new(6, 4),
        window: Window {
            x: 1,
            y: 0,
            width: 4,
            height: 4,
        },
    };

    #[test]
    fn labels_cover_what_the_model_saw() {
        let left: Vec<f32> = (0..16)
            .map(|index| f32::from(u8::from(index % 4 < 2)))
            .collect();
        let values = [left, vec![0.6; 16]];
        for is_sharp in [false, true] {
            let fields = Fields {
                values: &values,
                size: Size::square(4),
                cell: 1.0,
                floor: 0.5,
                is_sharp,
            };
            let all = fields.of_photograph(&PLACEMENT, Seen::new(&PLACEMENT, 2));
            assert_eq!(all.labels()[..12], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
            // A whole patch was cut off at each side.
            let middle = fields.of_photograph(&PLACEMENT, Seen::new(&PLACEMENT, 1));
            assert_eq!(middle.labels()[..12], [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0]);
            assert_eq!(fields.of_input().labels()[..4], [1, 1, 2, 2]);
        }
    }
}
