//! A basis that is kept, with the range of each component, so that colors agree between requests.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::Serialize;

use super::Pca;

/// Shares of the patches that may lie below and above a range: single odd patches among those of
/// many images would otherwise leave few colors to all others.
const QUANTILES: (f64, f64) = (0.01, 0.99);

/// Which coordinates along a component are shown from black to full color.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// The value that becomes 0.
    pub low: f32,
    /// The value that becomes 1.
    pub high: f32,
}

impl Range {
    /// From the least to the largest of the `values` that are shown.
    pub(super) fn of(values: ArrayView1<'_, f32>, shown: Option<&[bool]>) -> Self {
        let is_shown = |row: usize| shown.is_none_or(|shown| shown[row]);
        let visible = values
            .iter()
            .enumerate()
            .filter(|(row, _)| is_shown(*row))
            .map(|(_, &value)| value);
        let (low, high) = visible.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
        Self { low, high }
    }

    /// Between two [`QUANTILES`] of `values`.
    fn within_quantiles(values: ArrayView1<'_, f32>) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        Self {
            low: quantile(&sorted, QUANTILES.0),
            high: quantile(&sorted, QUANTILES.1),
        }
    }

    /// Scales each column of `projected` `[patches, components]` from its range to 0..1; what lies
    /// outside is cut off.
    pub(super) fn scale(ranges: &[Self], projected: &mut Array2<f32>) {
        for (mut column, Self { low, high }) in projected.columns_mut().into_iter().zip(ranges) {
            let range = if high > low { high - low } else { 1.0 };
            column.mapv_inplace(|value| ((value - low) / range).clamp(0.0, 1.0));
        }
    }
}

/// Linear between the two values beside it, as in numpy; 0 of none.
fn quantile(sorted: &[f32], share: f64) -> f32 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let (a, b) = (
        f64::from(sorted[below]),
        f64::from(sorted[(below + 1).min(last)]),
    );
    (a + (b - a) * place.fract()) as f32
}

/// A basis that is kept.
#[derive(Debug, Clone)]
pub struct Basis {
    pub(super) pca: Pca,
    pub(super) ranges: Vec<Range>,
}

impl Basis {
    /// With the ranges that most of the `tokens` `[n, dim]` lie in.
    pub(super) fn new(pca: Pca, tokens: ArrayView2<'_, f32>) -> Self {
        let projected = pca.project(tokens);
        let ranges = projected
            .axis_iter(Axis(1))
            .map(Range::within_quantiles)
            .collect();
        Self { pca, ranges }
    }

    /// Mean and components.
    pub fn pca(&self) -> &Pca {
        &self.pca
    }

    /// One for each component.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}
