//! Statistics of the patch tokens of any number of images, on which a basis can be fitted.

use std::collections::BTreeMap;

use faer::{Mat, MatRef};
use half::f16;
use ndarray::{Array1, Array2, ArrayView2};
use sha2::{Digest, Sha256};

use super::{Basis, Pca, check_count, eigen::lower_gram};
use crate::error::Result;

/// Maximum number of tokens in the sample.
const SAMPLE: usize = 4096;

/// Mean and scatter of tokens in f64, and a sample of the tokens, which gives the ranges of
/// components. Takes D² numbers and 4096 tokens of memory for any number of images.
///
/// Moments of parts are merged by the formula of Chan, Golub & LeVeque (1979), which loses no
/// digits, unlike sums of squares. The sample consists of the tokens with the smallest hashes. So
/// it is even, depends neither on the order of the images nor on their division into parts, and
/// contains equal tokens once.
#[derive(Debug, Clone)]
pub struct Moments {
    pub(super) images: u64,
    pub(super) patches: u64,
    /// `[dim]`.
    pub(super) mean: Array1<f64>,
    /// Σ (x − mean)(x − mean)ᵀ, `[dim, dim]`; only the lower triangle.
    pub(super) scatter: Mat<f64>,
    pub(super) sample: BTreeMap<[u8; 32], Box<[f16]>>,
}

impl Moments {
    /// Returns the moments of no images, for tokens of width `dim`.
    pub fn new(dim: usize) -> Self {
        Self {
            images: 0,
            patches: 0,
            mean: Array1::zeros(dim),
            scatter: Mat::zeros(dim, dim),
            sample: BTreeMap::new(),
        }
    }

    /// Returns the width of the tokens.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Computes the moments of one image with `tokens` `[patches, dim]`.
    pub fn of(tokens: ArrayView2<'_, f32>) -> Self {
        let (rows, dim) = tokens.dim();
        let mut found = Self {
            images: 1,
            patches: rows as u64,
            ..Self::new(dim)
        };
        for token in tokens.rows() {
            let mean = &mut found.mean;
            mean.zip_mut_with(&token, |sum, &value| *sum += f64::from(value));
            found.keep(token.iter().map(|&value| f16::from_f32(value)).collect());
        }
        found.mean /= rows.max(1) as f64;
        let mut centered = Vec::with_capacity(rows * dim);
        for token in tokens.rows() {
            let values = token.iter().zip(&found.mean);
            centered.extend(values.map(|(&value, mean)| f64::from(value) - mean));
        }
        found.scatter = lower_gram(MatRef::from_row_major_slice(&centered, rows, dim), 1.0);
        found
    }

    /// Adds the moments of other images, whose tokens have the same width.
    pub fn merge(&mut self, other: Self) {
        let ours = self.patches as f64;
        let theirs = other.patches as f64;
        let all = (ours + theirs).max(1.0);
        let difference = &other.mean - &self.mean;
        for column in 0..difference.len() {
            for row in column..difference.len() {
                self.scatter[(row, column)] += other.scatter[(row, column)]
                    + difference[row] * difference[column] * (ours * theirs / all);
            }
        }
        self.mean.scaled_add(theirs / all, &difference);
        self.images += other.images;
        self.patches += other.patches;
        for token in other.sample.into_values() {
            self.keep(token);
        }
    }

    /// Adds a token to the sample if its hash is among the smallest.
    pub(super) fn keep(&mut self, token: Box<[f16]>) {
        let hash: [u8; 32] = Sha256::digest(bytemuck::cast_slice::<f16, u8>(&token)).into();
        let largest = self.sample.last_key_value().map(|(largest, _)| largest);
        if self.sample.len() < SAMPLE || largest.is_some_and(|largest| hash < *largest) {
            self.sample.insert(hash, token);
        }
        if self.sample.len() > SAMPLE {
            self.sample.pop_last();
        }
    }

    /// Fits a basis of `count` components. Fails as [`Pca::fit`] does.
    pub fn fit(&self, count: usize) -> Result<Basis> {
        let dim = self.mean.len();
        check_count(count, self.patches as usize, dim)?;
        let scale = 1.0 / self.patches as f64;
        let covariance = Mat::from_fn(dim, dim, |row, column| {
            (self.scatter[(row.max(column), row.min(column))] * scale) as f32
        });
        let pca = Pca::of_covariance(self.mean.mapv(|value| value as f32), &covariance, count)?;
        let mut sample = Array2::zeros((self.sample.len(), dim));
        for (mut row, token) in sample.rows_mut().into_iter().zip(self.sample.values()) {
            for (value, stored) in row.iter_mut().zip(token) {
                *value = stored.to_f32();
            }
        }
        Ok(Basis::new(pca, sample.view()))
    }

    /// Returns the number of images.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Returns the number of patches.
    pub fn patches(&self) -> u64 {
        self.patches
    }
}
