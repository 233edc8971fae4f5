//! The graph of alike patches, as a matrix of bits.

use ndarray::{Array2, ArrayView2, Axis};

use crate::features::cosines::for_each_row;

/// Which patches are joined by an edge. A patch is joined with itself.
pub(super) struct Graph {
    patches: usize,
    /// Bytes of a row.
    stride: usize,
    /// Eight columns a byte, the first in the lowest bit.
    bits: Vec<u8>,
}

/// Returns the mean cosine of all pairs of tokens: near 1 for an image whose patches all show the
/// same.
pub(super) fn mean_cosine(tokens: ArrayView2<'_, f32>) -> f64 {
    let mut mean = vec![0.0_f64; tokens.ncols()];
    for token in tokens.rows() {
        let length = length(token.iter().copied());
        for (sum, &value) in mean.iter_mut().zip(token) {
            *sum += f64::from(value) / length / tokens.nrows() as f64;
        }
    }
    mean.iter().map(|value| value * value).sum()
}

fn length(values: impl Iterator<Item = f32>) -> f64 {
    let square: f64 = values.map(|value| f64::from(value).powi(2)).sum();
    square.sqrt().max(1e-12)
}

impl Graph {
    /// Joins the tokens `[patches, dim]` whose cosine is above `threshold` after the mean token is
    /// subtracted.
    pub(super) fn new(tokens: ArrayView2<'_, f32>, threshold: f32) -> Self {
        let unit = centered(tokens);
        let patches = unit.nrows();
        let stride = patches.div_ceil(8);
        let mut bits = vec![0; patches * stride];
        for_each_row(&unit, &unit, |patch, cosines| {
            let row = &mut bits[patch * stride..(patch + 1) * stride];
            for (eight, byte) in cosines.chunks(8).zip(row) {
                let bits = eight.iter().enumerate();
                *byte = bits.fold(0, |byte, (bit, &cosine)| {
                    byte | (u8::from(cosine > threshold) << bit)
                });
            }
        });
        let mut graph = Self {
            patches,
            stride,
            bits,
        };
        // A token at the mean has no direction.
        (0..patches).for_each(|patch| graph.bits[patch * stride + patch / 8] |= 1 << (patch % 8));
        graph
    }

    /// Returns the number of patches.
    pub(super) fn patches(&self) -> usize {
        self.patches
    }

    /// Computes, for each of some patches, the sum of the `values` `[patches]` of those that it is
    /// joined with. Sums of eight values are looked up in tables, so that a row takes an addition a
    /// byte.
    pub(super) fn sums(&self, of: &[usize], values: &[f64]) -> Vec<f64> {
        let mut tables = vec![[0.0_f64; 256]; self.stride];
        for (eight, table) in values.chunks(8).zip(&mut tables) {
            for (bit, &value) in eight.iter().enumerate() {
                let half = 1 << bit;
                let (low, high) = table.split_at_mut(half);
                for (sum, low) in high.iter_mut().zip(low) {
                    *sum = *low + value;
                }
            }
        }
        let sum = |&patch: &usize| {
            let row = &self.bits[patch * self.stride..(patch + 1) * self.stride];
            let sums = row.iter().zip(&tables);
            sums.map(|(&byte, table)| table[usize::from(byte)]).sum()
        };
        of.iter().map(sum).collect()
    }
}

/// Subtracts the mean token and scales each to length 1.
fn centered(tokens: ArrayView2<'_, f32>) -> Array2<f32> {
    let mean = tokens.mapv(f64::from).mean_axis(Axis(0));
    let mean = mean.map_or_else(Vec::new, |mean| mean.to_vec());
    let mut unit = tokens.to_owned();
    for mut token in unit.rows_mut() {
        for (value, mean) in token.iter_mut().zip(&mean) {
            *value = (f64::from(*value) - mean) as f32;
        }
        let length = length(token.iter().copied());
        token.mapv_inplace(|value| (f64::from(value) / length) as f32);
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_joined_patches() {
        let mut random = fastrand::Rng::with_seed(3);
        let tokens = Array2::from_shape_simple_fn((21, 5), || random.f32() - 0.5);
        let graph = Graph::new(tokens.view(), 0.1);
        let unit = centered(tokens.view());
        let cosines = unit.dot(&unit.t());
        let values: Vec<f64> = (0..21).map(f64::from).collect();
        let patches = [0, 7, 20];
        let sums = graph.sums(&patches, &values);
        for (&patch, sum) in patches.iter().zip(sums) {
            let joined = (0..21).filter(|&other| cosines[(patch, other)] > 0.1);
            assert_eq!(sum, joined.map(|other| values[other]).sum::<f64>());
        }
        assert!((mean_cosine(Array2::ones((4, 3)).view()) - 1.0).abs() < 1e-9);
    }
}
