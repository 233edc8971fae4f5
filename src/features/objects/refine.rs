//! Masks of patches, refined along the edges of the photograph.
//!
//! A guided filter (He et al. 2010, fast as in He & Sun 2015) expresses the mask around each place
//! as a linear function of the colors there. It works on cells of half a patch, and the functions
//! are interpolated to pixels, so that edges of the photograph become edges of the mask.

use faer::{Mat, linalg::solvers::Solve};

use crate::vision::{Grid, RgbImage};

/// Cells of a patch along each side.
const CELLS: usize = 2;
/// Cells around a cell on each side that its function is fitted on: one patch, where a cell is half
/// of one.
const RADIUS: usize = 2;
/// Variance of colors, 0 to 1, below which they are no edge.
const EPSILON: f64 = 1e-4;
/// Channels of the guide.
const COLORS: usize = 3;

/// Returns a value for each pixel of `image`, which consists of the patches of `grid`: above 0.5
/// within the mask.
pub fn refined(patches: &[bool], grid: Grid, image: &RgbImage) -> Vec<f32> {
    let patch = image.width() as usize / grid.width;
    // Half of an odd patch is no whole number of pixels.
    let cells = if patch.is_multiple_of(CELLS) {
        CELLS
    } else {
        1
    };
    let step = patch / cells;
    let (height, width) = (grid.height * cells, grid.width * cells);
    let guide = cell_colors(image, step, width, height);
    let mask: Vec<f64> = patches
        .iter()
        .map(|&patch| f64::from(u8::from(patch)))
        .collect();
    let mask = Plane {
        values: mask,
        width: grid.width,
        height: grid.height,
    }
    .stretched(cells);
    let functions = fitted(&guide, &mask);
    let functions: Vec<Plane> = functions
        .iter()
        .map(|plane| plane.mean().stretched(step))
        .collect();
    let pixels = image.pixels().enumerate();
    let value = |(index, pixel): (usize, &image::Rgb<u8>)| {
        let terms = (0..COLORS).map(|c| functions[c].values[index] * f64::from(pixel.0[c]) / 255.0);
        (terms.sum::<f64>() + functions[COLORS].values[index]) as f32
    };
    pixels.map(value).collect()
}

/// Returns a value for each pixel of an image that consists of the patches of `grid`, of `patch`
/// pixels: 1 within the mask and 0 outside.
pub fn in_patches(patches: &[bool], grid: Grid, patch: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(patches.len() * patch * patch);
    for row in patches.chunks(grid.width) {
        let line = row.iter().flat_map(|&inside| {
            let value = f32::from(u8::from(inside));
            std::iter::repeat_n(value, patch)
        });
        let line: Vec<f32> = line.collect();
        (0..patch).for_each(|_| values.extend_from_slice(&line));
    }
    values
}

/// Values of cells or pixels, row by row.
struct Plane {
    values: Vec<f64>,
    width: usize,
    height: usize,
}

impl Plane {
    fn map(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = self.values.iter().zip(&other.values);
        Self {
            values: pairs.map(|(&one, &other)| join(one, other)).collect(),
            ..*self
        }
    }

    /// Means over the windows around each value; those at the border are smaller.
    fn mean(&self) -> Self {
        let rows = means(&self.values, self.width, 1, self.width, self.height);
        Self {
            values: means(&rows, self.height, self.width, 1, self.width),
            ..*self
        }
    }

    /// Interpolates linearly between the centers of values, to `factor` times the size.
    fn stretched(&self, factor: usize) -> Self {
        let (width, height) = (self.width * factor, self.height * factor);
        let across: Vec<_> = (0..width).map(|x| between(x, factor, self.width)).collect();
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            let (low, high, share) = between(y, factor, self.height);
            let row = |index: usize| &self.values[index * self.width..(index + 1) * self.width];
            let pairs = row(low).iter().zip(row(high));
            let line: Vec<f64> = pairs
                .map(|(low, high)| low + share * (high - low))
                .collect();
            let interpolated = across
                .iter()
                .map(|&(low, high, share)| line[low] + share * (line[high] - line[low]));
            values.extend(interpolated);
        }
        Self {
            values,
            width,
            height,
        }
    }
}

/// Returns the two values around a place in a line that is stretched, and the share of the second.
fn between(place: usize, factor: usize, count: usize) -> (usize, usize, f64) {
    let at = (place as f64 + 0.5) / factor as f64 - 0.5;
    let at = at.clamp(0.0, (count - 1) as f64);
    let low = at as usize;
    (low, (low + 1).min(count - 1), at - low as f64)
}

/// Means along lines of `length` values that are `step` apart, in `lines` lines `next` apart.
fn means(values: &[f64], length: usize, step: usize, next: usize, lines: usize) -> Vec<f64> {
    let mut means = vec![0.0; values.len()];
    let mut sums = vec![0.0; length + 1];
    for line in 0..lines {
        let start = line * next;
        for index in 0..length {
            sums[index + 1] = sums[index] + values[start + index * step];
        }
        for index in 0..length {
            let low = index.saturating_sub(RADIUS);
            let high = (index + RADIUS + 1).min(length);
            means[start + index * step] = (sums[high] - sums[low]) / (high - low) as f64;
        }
    }
    means
}

/// Returns the mean colors of cells of `step` pixels, 0 to 1, a plane for each channel.
fn cell_colors(image: &RgbImage, step: usize, width: usize, height: usize) -> [Plane; COLORS] {
    let mut sums = [(); COLORS].map(|()| vec![0_u32; width * height]);
    for (y, row) in image.rows().enumerate() {
        for (x, pixel) in row.enumerate() {
            let cell = y / step * width + x / step;
            for (sums, &value) in sums.iter_mut().zip(&pixel.0) {
                sums[cell] += u32::from(value);
            }
        }
    }
    let count = (step * step) as f64 * 255.0;
    sums.map(|sums| Plane {
        values: sums.into_iter().map(|sum| f64::from(sum) / count).collect(),
        width,
        height,
    })
}

/// Fits the mask in the window around each cell as a linear function of the colors: a factor for
/// each channel, and a constant.
fn fitted(guide: &[Plane; COLORS], mask: &Plane) -> Vec<Plane> {
    let product = |one: &Plane, other: &Plane| one.map(other, |one, other| one * other).mean();
    let means = guide.each_ref().map(Plane::mean);
    let mask_mean = mask.mean();
    let with_mask = guide.each_ref().map(|channel| product(channel, mask));
    let squares = guide
        .each_ref()
        .map(|one| guide.each_ref().map(|other| product(one, other)));
    let mut functions: Vec<Plane> = (0..=COLORS).map(|_| mask.map(mask, |_, _| 0.0)).collect();
    for cell in 0..mask.values.len() {
        let mean = means.each_ref().map(|plane| plane.values[cell]);
        let covariance = Mat::<f64>::from_fn(COLORS, COLORS, |i, j| {
            let epsilon = if i == j { EPSILON } else { 0.0 };
            squares[i][j].values[cell] - mean[i] * mean[j] + epsilon
        });
        let right = Mat::<f64>::from_fn(COLORS, 1, |i, _| {
            with_mask[i].values[cell] - mean[i] * mask_mean.values[cell]
        });
        let factors = covariance.partial_piv_lu().solve(&right);
        let mut constant = mask_mean.values[cell];
        for channel in 0..COLORS {
            let factor = factors[(channel, 0)];
            functions[channel].values[cell] = factor;
            constant -= factor * mean[channel];
        }
        functions[COLORS].values[cell] = constant;
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_of_the_photograph_becomes_that_of_the_mask() {
        let grid = Grid {
            height: 8,
            width: 8,
        };
        // The edge lies at pixel 53, in the middle of the fourth patch of 14.
        let image = RgbImage::from_fn(112, 112, |x, _| {
            image::Rgb(if x < 53 { [200, 40, 40] } else { [40, 60, 90] })
        });
        let patches: Vec<bool> = (0..64).map(|patch| patch % 8 < 4).collect();
        let values = refined(&patches, grid, &image);
        let row = &values[56 * 112..57 * 112];
        let inside = row.iter().filter(|&&value| value > 0.5).count();
        assert_eq!(inside, 53);
        let plain = in_patches(&patches, grid, 14);
        assert_eq!(
            plain[..112].iter().filter(|&&value| value > 0.5).count(),
            56
        );
        assert_eq!(plain.len(), 112 * 112);
    }
}
