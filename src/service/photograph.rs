//! Values of the model's input, brought to the pixels of the photograph.

use crate::{
    features::mask::LabelImage,
    vision::{Placement, Size},
};

/// Values of the model's input, in which objects or classes compete for pixels.
pub(super) struct Fields<'a> {
    /// For each of them a value for each pixel of the input, row by row.
    pub(super) values: &'a [Vec<f32>],
    /// Size of the input.
    pub(super) input: Size,
    /// Whether a pixel takes the value of the nearest one, without interpolation.
    pub(super) is_sharp: bool,
}

impl Fields<'_> {
    /// Labels the pixels of the input.
    pub(super) fn of_input(&self) -> LabelImage {
        let labels = self.rows_of(self.input, |x| x, |y| y);
        LabelImage::new(self.input, labels)
    }

    /// Labels the pixels of the upright photograph. Those outside of `seen` have label 0.
    pub(super) fn of_photograph(&self, placement: &Placement, seen: Seen) -> LabelImage {
        let across = |x| placement.to_input([x, 0.0])[0];
        let down = |y| placement.to_input([0.0, y])[1];
        let mut labels = self.rows_of(placement.image, across, down);
        for (y, row) in labels.chunks_mut(placement.image.width).enumerate() {
            let is_inside = (seen.top..seen.bottom).contains(&y);
            let kept = if is_inside {
                seen.left..seen.right
            } else {
                0..0
            };
            row[..kept.start].fill(0);
            row[kept.end..].fill(0);
        }
        LabelImage::new(placement.image, labels)
    }

    /// Returns a label for each pixel of an image of a size: 1 and up for the field with the
    /// largest value above 0.5, and 0 where there is none. `across` and `down` say where a pixel
    /// lies in the input, in whose coordinates the center of the first pixel is 0.5. Beyond the
    /// input, its border is repeated.
    fn rows_of(
        &self,
        size: Size,
        across: impl Fn(f64) -> f64,
        down: impl Fn(f64) -> f64,
    ) -> Vec<u8> {
        let Size { width, height } = size;
        let between = |at, count| Between::new(at, count, self.is_sharp);
        let columns: Vec<Between> = (0..width)
            .map(|x| between(across(x as f64 + 0.5), self.input.width))
            .collect();
        let mut labels = vec![0; width * height];
        let mut line = vec![0.0; self.input.width];
        let mut best = vec![0.5; width];
        for (y, winners) in labels.chunks_mut(width).enumerate() {
            let rows = between(down(y as f64 + 0.5), self.input.height);
            best.fill(0.5);
            for (index, field) in self.values.iter().enumerate() {
                let row = |row: usize| &field[row * self.input.width..][..self.input.width];
                let pairs = row(rows.low).iter().zip(row(rows.high));
                for (value, (low, high)) in line.iter_mut().zip(pairs) {
                    *value = low + rows.share * (high - low);
                }
                let pixels = columns.iter().zip(best.iter_mut().zip(&mut *winners));
                for (place, (best, winner)) in pixels {
                    let (low, high) = (line[place.low], line[place.high]);
                    let value = low + place.share * (high - low);
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
}

/// Two pixels around a place in a line, and the share of the second.
struct Between {
    low: usize,
    high: usize,
    share: f32,
}

impl Between {
    /// `at` is continuous: the center of the first pixel is 0.5.
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
                input: Size::square(4),
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
