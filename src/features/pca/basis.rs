//! A stored basis, with the range of each component, so that colors agree between requests.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::Serialize;

use super::Pca;

/// Quantiles of the coordinates at the ends of a range. Without this limit a few outliers among the
/// patches of many images would leave few colors to all others.
const LOW_QUANTILE: f64 = 0.01;
const HIGH_QUANTILE: f64 = 0.99;

/// Coordinates along a component that are shown from black to full color.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// Value that becomes 0.
    pub low: f32,
    /// Value that becomes 1.
    pub high: f32,
}

impl Range {
    /// Returns the range of the `values` that are shown.
    pub(super) fn of(values: ArrayView1<'_, f32>, shown: Option<&[bool]>) -> Self {
        let mut low = f32::INFINITY;
        let mut high = f32::NEG_INFINITY;
        for (row, &value) in values.iter().enumerate() {
            if shown.is_none_or(|shown| shown[row]) {
                low = low.min(value);
                high = high.max(value);
            }
        }
        Self { low, high }
    }

    /// Returns the range between two quantiles of `values`.
    fn within_quantiles(values: ArrayView1<'_, f32>) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        Self {
            low: quantile(&sorted, LOW_QUANTILE),
            high: quantile(&sorted, HIGH_QUANTILE),
        }
    }

    /// Scales each column of `projected` `[patches, components]` from its range to 0..1, and clamps
    /// values outside.
    pub(super) fn scale(ranges: &[Self], projected: &mut Array2<f32>) {
        for (mut column, Self { low, high }) in projected.columns_mut().into_iter().zip(ranges) {
            let range = if high > low { high - low } else { 1.0 };
            column.mapv_inplace(|value| ((value - low) / range).clamp(0.0, 1.0));
        }
    }
}

/// Computes a quantile, linear between its two neighbors, as in NumPy; 0 without values.
fn quantile(sorted: &[f32], share: f64) -> f32 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let a = f64::from(sorted[below]);
    let b = f64::from(sorted[(below + 1).min(last)]);
    (a + (b - a) * place.fract()) as f32
}

/// A stored basis.
#[derive(Debug, Clone)]
pub struct Basis {
    pub(super) pca: Pca,
    pub(super) ranges: Vec<Range>,
}

impl Basis {
    /// Returns the width of the tokens that the basis takes.
    pub fn dim(&self) -> usize {
        self.pca.components.ncols()
    }

    /// Makes a basis, with ranges that contain almost all of the `tokens` `[n, dim]`.
    pub(super) fn new(pca: Pca, tokens: ArrayView2<'_, f32>) -> Self {
        let projected = pca.project(tokens);
        let columns = projected.axis_iter(Axis(1));
        let ranges = columns.map(Range::within_quantiles).collect();
        Self { pca, ranges }
    }

    /// Returns mean and components.
    pub fn pca(&self) -> &Pca {
        &self.pca
    }

    /// Returns the range of each component.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}
