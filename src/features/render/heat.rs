//! Heat maps: warm colors where values are large, and nothing where they are small.

use super::{Colormap, to_byte};
use crate::vision::{Grid, PatchSize, ResampleFilter, RgbImage, resample_f32};

/// Draws `values`, one for each patch, over an image. The color is that of the value from 0 to 1,
/// and the opacity grows with it up to `opacity` at 1, so that the image shows where values are
/// small.
pub fn heat_map(image: &RgbImage, values: &[f32], grid: Grid, opacity: f32) -> RgbImage {
    let patch = PatchSize::new((image.width() as usize / grid.width).max(1));
    let size = grid.pixels(patch);
    let source = grid.pixels(PatchSize::new(1));
    let values = resample_f32(values, source, 1, size, ResampleFilter::Bilinear.kernel());
    let table = Colormap::Inferno.table();
    let mut drawn = image.clone();
    for (pixel, value) in drawn.pixels_mut().zip(values) {
        let value = value.clamp(0.0, 1.0);
        let color = table[usize::from(to_byte(value))];
        let share = opacity * value;
        for (below, above) in pixel.0.iter_mut().zip(color) {
            let mixed = f32::from(*below) * (1.0 - share) + f32::from(above) * share;
            *below = mixed.round() as u8;
        }
    }
    drawn
}
