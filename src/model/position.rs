//! Position embeddings for any grid, interpolated as Meta's code does (`interpolate_pos_encoding`).
//!
//! * Without registers: bicubic, a = −0.75, no antialias, border clamped; the hub's rule scales by
//!   `(n + 0.1) / 37`.
//! * With registers: bicubic with antialias, a = −0.5, weights renormalized at the border.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, s};

use super::{ModelSpec, PositionRule};
use crate::vision::{Grid, ResampleFilter, taps};

/// The trained table of a model, from which tables for other grids are made.
#[derive(Debug, Clone)]
pub struct PositionTable {
    /// `[1 + native², dim]`.
    table: Array2<f32>,
    native: usize,
    antialias: bool,
    rule: PositionRule,
}

impl PositionTable {
    /// A table of `[1 + native_grid², dim]`, CLS first.
    ///
    /// # Panics
    /// If the table has another shape than the description says.
    pub fn new(table: Array2<f32>, spec: &ModelSpec, rule: PositionRule) -> Self {
        assert_eq!(
            table.dim(),
            (1 + spec.native_grid * spec.native_grid, spec.dim)
        );
        Self {
            table,
            native: spec.native_grid,
            antialias: spec.registers > 0,
            rule,
        }
    }

    /// The table for `grid`: `[1 + h·w, dim]`. The CLS row is never touched.
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

    /// For each of `n` positions its source positions and their weights.
    fn weights(&self, n: usize) -> Vec<Vec<(usize, f32)>> {
        if self.antialias {
            let taps = taps(ResampleFilter::Bicubic.kernel(), self.native, n, 0..n);
            let row = |i| {
                let (start, weights) = taps.at(i);
                weights
                    .iter()
                    .enumerate()
                    .map(|(j, &weight)| (start + j, weight as f32))
                    .collect()
            };
            return (0..n).map(row).collect();
        }
        let scale = match self.rule {
            PositionRule::Hub => self.native as f64 / (n as f64 + 0.1),
            PositionRule::Hf => self.native as f64 / n as f64,
        } as f32;
        let last = self.native as i64 - 1;
        let row = |i: usize| {
            let source = scale * (i as f32 + 0.5) - 0.5;
            let start = source.floor();
            let t = source - start;
            let weights = [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)];
            let index = |j: usize| (start as i64 - 1 + j as i64).clamp(0, last) as usize;
            weights
                .into_iter()
                .enumerate()
                .map(|(j, weight)| (index(j), weight))
                .collect()
        };
        (0..n).map(row).collect()
    }
}

const A: f32 = -0.75;

/// The cubic within one source pixel of its center.
fn inner(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The cubic between one and two source pixels from its center.
fn outer(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

fn along_columns(map: ArrayView3<'_, f32>, columns: &[Vec<(usize, f32)>]) -> Array3<f32> {
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

/// `[rows.len() · width, dim]`.
fn along_rows(map: ArrayView3<'_, f32>, rows: &[Vec<(usize, f32)>]) -> Array2<f32> {
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
