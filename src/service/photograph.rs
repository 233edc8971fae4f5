//! Values of the model's input, brought to the pixels of the photograph.

use crate::vision::{Placement, Size};

/// Returns a label for each pixel of the upright image, row by row: 1 and up for the field with the
/// largest value above 0.5, 0 where there is none. Each field has a value for each pixel of the
/// model's input, of the same size in all. Values are interpolated between pixels, or those of the
/// nearest pixel if `sharp`. Beyond the part that the model sees, its border is repeated.
pub(super) fn labels(
    fields: &[Vec<f32>],
    input: Size,
    placement: &Placement,
    sharp: bool,
) -> Vec<u8> {
    let Size { width, height } = placement.image;
    let across: Vec<Between> = (0..width)
        .map(|x| {
            Between::new(
                placement.to_input([x as f64 + 0.5, 0.0])[0],
                input.width,
                sharp,
            )
        })
        .collect();
    let mut labels = Vec::with_capacity(width * height);
    let mut line = vec![0.0; input.width];
    let mut best = vec![0.5; width];
    let mut winners = vec![0_u8; width];
    for y in 0..height {
        let down = placement.to_input([0.0, y as f64 + 0.5])[1];
        let down = Between::new(down, input.height, sharp);
        best.fill(0.5);
        winners.fill(0);
        for (index, field) in fields.iter().enumerate() {
            let row = |index: usize| &field[index * input.width..(index + 1) * input.width];
            for (value, (low, high)) in line
                .iter_mut()
                .zip(row(down.low).iter().zip(row(down.high)))
            {
                *value = low + down.share * (high - low);
            }
            let pixels = across.iter().zip(best.iter_mut().zip(&mut winners));
            for (place, (best, winner)) in pixels {
                let value = line[place.low] + place.share * (line[place.high] - line[place.low]);
                if value > *best {
                    *best = value;
                    *winner = index as u8 + 1;
                }
            }
        }
        labels.extend_from_slice(&winners);
    }
    labels
}

/// Two pixels around a place in a line, and the share of the second.
struct Between {
    low: usize,
    high: usize,
    share: f32,
}

impl Between {
    /// `at` is continuous: the center of the first pixel is 0.5.
    fn new(at: f64, count: usize, sharp: bool) -> Self {
        let last = count - 1;
        if sharp {
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

    #[test]
    fn labels_cover_the_whole_photograph() {
        // The model sees the middle 4×4 of 6×4 pixels, of an image of twice the size.
        let placement = Placement {
            image: Size::new(12, 8),
            resized: Size::new(6, 4),
            window: Window {
                x: 1,
                y: 0,
                width: 4,
                height: 4,
            },
        };
        let left: Vec<f32> = (0..16)
            .map(|index| f32::from(u8::from(index % 4 < 2)))
            .collect();
        let weak = vec![0.6; 16];
        for sharp in [false, true] {
            let labels = labels(
                &[left.clone(), weak.clone()],
                Size::square(4),
                &placement,
                sharp,
            );
            assert_eq!(labels.len(), 96);
            assert_eq!(labels[..6], [1; 6]);
            assert_eq!(labels[6..12], [2; 6]);
        }
    }
}
