//! The way from tokens to the unit vectors that a bank compares.

use half::slice::HalfFloatSliceExt;
use ndarray::{Array1, Array2, ArrayView2};

use super::good_images::GoodImages;

/// Length below which a vector, or a dimension, is taken for zero.
const TINY: f64 = 1e-12;

/// What is common to all tokens of a bank.
///
/// A token without the mean token of its own image says what is special about a place, whatever the
/// light. The gain of a model's final norm gives a few dimensions most of the weight, so each one
/// is divided by its root mean square.
#[derive(Debug, Clone)]
pub(super) struct Scaling {
    /// Mean over images of their mean tokens, `[dim]`.
    mean: Array1<f32>,
    /// One over the root mean square of each dimension, `[dim]`.
    inverse: Array1<f32>,
}

impl Scaling {
    pub(super) fn of(good: &GoodImages) -> Self {
        let dim = good.dim();
        let mut row = vec![0.0_f32; dim];
        let mut mean = Array1::<f64>::zeros(dim);
        let mut means = Vec::with_capacity(good.images().len());
        for (tokens, _) in good.each() {
            let mut of_image = Array1::<f64>::zeros(dim);
            for token in tokens.chunks_exact(dim) {
                token.convert_to_f32_slice(&mut row);
                of_image
                    .iter_mut()
                    .zip(&row)
                    .for_each(|(sum, &value)| *sum += f64::from(value));
            }
            of_image /= (tokens.len() / dim).max(1) as f64;
            mean += &of_image;
            means.push(of_image);
        }
        mean /= means.len().max(1) as f64;
        let mut squares = Array1::<f64>::zeros(dim);
        for ((tokens, _), of_image) in good.each().zip(&means) {
            let shift = &mean - of_image;
            for token in tokens.chunks_exact(dim) {
                token.convert_to_f32_slice(&mut row);
                for ((sum, &value), shift) in squares.iter_mut().zip(&row).zip(&shift) {
                    *sum += (f64::from(value) + shift).powi(2);
                }
            }
        }
        let count = good.tokens().len() / dim;
        let inverse = squares.mapv(|sum| {
            let rms = (sum / count.max(1) as f64).sqrt();
            if rms < TINY { 1.0 } else { 1.0 / rms }
        });
        Self {
            mean: mean.mapv(|value| value as f32),
            inverse: inverse.mapv(|value| value as f32),
        }
    }

    /// Returns the width of the tokens.
    pub(super) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Returns the unit vectors of the tokens of one image, `[patches, dim]`. A token of length 0
    /// does not change.
    pub(super) fn unit_vectors(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut own = Array1::<f64>::zeros(tokens.ncols());
        for token in tokens.rows() {
            own.zip_mut_with(&token, |sum, &value| *sum += f64::from(value));
        }
        own /= tokens.nrows().max(1) as f64;
        let shift = &self.mean - &own.mapv(|value| value as f32);
        let mut vectors = tokens.as_standard_layout().into_owned();
        for mut vector in vectors.rows_mut() {
            vector += &shift;
            vector *= &self.inverse;
            let length = vector.dot(&vector).sqrt();
            if f64::from(length) >= TINY {
                vector /= length;
            }
        }
        vectors
    }
}
