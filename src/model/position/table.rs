//! Position tables for any grid, interpolated as in the authors' code.
//!
//! * [`Interpolation::Offset`] (`interpolate_pos_encoding` of DINO and DINOv2): bicubic, a = −0.75,
//!   no antialiasing, border clamped, scaled by `(n + 0.1) / native`.
//! * [`Interpolation::Antialiased`] (DINOv2 with registers, timm's `resample_abs_pos_embed`):
//!   bicubic with antialiasing, a = −0.5, weights renormalized at the border.
//! * Hugging Face's rule: as the first, scaled by `n / native`. For models with registers Hugging
//!   Face antialiases, too.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, s};

use crate::{
    model::{Architecture, Interpolation, PositionRule},
    vision::{Grid, ResampleFilter, Tap, taps},
};

/// The trained table of a model, from which tables for other grids are made.
#[derive(Debug, Clone)]
pub struct PositionTable {
    /// `[1 + native², dim]`.
    table: Array2<f32>,
    native: usize,
    scaling: Scaling,
}

/// How weights for another grid are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaling {
    Offset,
    Plain,
    Antialiased,
}

/// Source positions of one output position, with their weights.
type Weights = Vec<(usize, f32)>;

impl PositionTable {
    /// Wraps a table of `[1 + native_grid², dim]`, CLS first.
    ///
    /// # Panics
    /// If the shape of the table is not that of the architecture.
    pub fn new(table: Array2<f32>, architecture: &Architecture, rule: PositionRule) -> Self {
        assert_eq!(table.dim(), architecture.position_table_shape());
        Self {
            table,
            native: architecture.native_grid,
            scaling: match (rule, architecture.interpolation()) {
                (PositionRule::Hf, _) if architecture.registers == 0 => Scaling::Plain,
                (PositionRule::Hf, _) => Scaling::Antialiased,
                (_, Interpolation::Offset) => Scaling::Offset,
                (_, Interpolation::Antialiased) => Scaling::Antialiased,
            },
        }
    }

    /// Computes the table for `grid`: `[1 + h·w, dim]`. The CLS row is never changed.
    pub fn interpolate(&self, grid: Grid) -> Array2<f32> {
        if (grid.height, grid.width) == (self.native, self.native) {
            return self.table.clone();
        }
        let dim = self.table.ncols();
        let patches = self.table.slice(s![1.., ..]);
        let patches = patches
            .into_shape_with_order((self.native, self.native, dim))
            .expect("the table is contiguous");
        let rows = self.weights(grid.height);
        let columns = self.weights(grid.width);
        let narrow = along_columns(patches, &columns);
        let small = along_rows(narrow.view(), &rows);

        let mut out = Array2::zeros((1 + grid.patches(), dim));
        out.row_mut(0).assign(&self.table.row(0));
        out.slice_mut(s![1.., ..]).assign(&small);
        out
    }

    /// Computes the weights of `n` output positions.
    fn weights(&self, n: usize) -> Vec<Weights> {
        match self.scaling {
            Scaling::Antialiased => antialiased_weights(self.native, n),
            Scaling::Offset => clamped_weights(self.native, n, 0.1),
            Scaling::Plain => clamped_weights(self.native, n, 0.0),
        }
    }
}

fn antialiased_weights(native: usize, n: usize) -> Vec<Weights> {
    let taps = taps(ResampleFilter::Bicubic.kernel(), native, n, 0..n);
    (0..n)
        .map(|i| {
            let Tap { start, weights } = taps.at(i);
            (start..)
                .zip(weights)
                .map(|(source, &weight)| (source, weight as f32))
                .collect()
        })
        .collect()
}

fn clamped_weights(native: usize, n: usize, offset: f64) -> Vec<Weights> {
    let scale = (native as f64 / (n as f64 + offset)) as f32;
    let last = native as i64 - 1;
    (0..n)
        .map(|i| {
            let source = scale * (i as f32 + 0.5) - 0.5;
            let start = source.floor();
            let t = source - start;
            let weights = [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)];
            (start as i64 - 1..)
                .zip(weights)
                .map(|(source, weight)| (source.clamp(0, last) as usize, weight))
                .collect()
        })
        .collect()
}

const A: f32 = -0.75;

/// Computes the cubic within one source pixel of its center.
fn inner(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// Computes the cubic between one and two source pixels from its center.
fn outer(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

/// Returns `[height, columns.len(), dim]`.
fn along_columns(map: ArrayView3<'_, f32>, columns: &[Weights]) -> Array3<f32> {
    let (height, _, dim) = map.dim();
    let mut out = Array3::zeros((height, columns.len(), dim));
    for y in 0..height {
        for (x, weights) in columns.iter().enumerate() {
            for &(source, weight) in weights {
                out.slice_mut(s![y, x, ..])
                    .scaled_add(weight, &map.slice(s![y, source, ..]));
            }
        }
    }
    out
}

/// Returns `[rows.len() · width, dim]`.
fn along_rows(map: ArrayView3<'_, f32>, rows: &[Weights]) -> Array2<f32> {
    let (height, width, dim) = map.dim();
    let flat: ArrayView2<'_, f32> = map
        .into_shape_with_order((height, width * dim))
        .expect("a fresh array is contiguous");
    let mut out = Array2::zeros((rows.len(), width * dim));
    for (y, weights) in rows.iter().enumerate() {
        for &(source, weight) in weights {
            out.row_mut(y).scaled_add(weight, &flat.row(source));
        }
    }
    out.into_shape_with_order((rows.len() * width, dim))
        .expect("a fresh array is contiguous")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_position_sum_to_1() {
        for n in [1, 5, 16, 37, 60] {
            let hub = clamped_weights(37, n, 0.1);
            for (i, weights) in antialiased_weights(37, n).iter().chain(&hub).enumerate() {
                let sum: f32 = weights.iter().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{n}: {i}: {sum}");
            }
        }
    }

    /// torch.nn.functional.interpolate, bicubic, of a ramp of 4 values to 2.
    #[test]
    fn weights_without_antialiasing_are_those_of_torch() {
        let weights = clamped_weights(4, 2, 0.0);
        let expected = [
            [(0, -0.09375), (0, 0.59375), (1, 0.59375), (2, -0.09375)],
            [(1, -0.09375), (2, 0.59375), (3, 0.59375), (3, -0.09375)],
        ];
        assert_eq!(weights, expected);
    }
}
