//! What is kept of the patch tokens of any number of images, so that a basis can be fitted on all
//! of them.

use std::collections::BTreeMap;

use faer::{
    Accum, Mat, MatRef, Par,
    linalg::matmul::triangular::{self, BlockStructure},
};
use half::f16;
use ndarray::{Array1, Array2, ArrayView2};
use sha2::{Digest, Sha256};

use super::{Basis, Pca, check_count};
use crate::error::Result;

/// Tokens that are kept to find the ranges of components.
const SAMPLE: usize = 4096;

/// Mean and scatter of tokens in f64, and a sample of the tokens. Takes D² numbers and 4096 tokens
/// of memory, however many there were.
///
/// Moments of parts are merged by the formula of Chan, Golub & LeVeque (1979), which loses no
/// digits where sums of squares would. The sample has the tokens with the least hashes, so it is
/// even, and depends neither on the order of the images nor on how they were split; of equal tokens
/// it has one.
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
    /// Of no image; tokens are `dim` wide.
    pub fn new(dim: usize) -> Self {
        let (mean, scatter) = (Array1::zeros(dim), Mat::zeros(dim, dim));
        Self {
            images: 0,
            patches: 0,
            mean,
            scatter,
            sample: BTreeMap::new(),
        }
    }

    /// Of one image with these `tokens` `[patches, dim]`.
    pub fn of(tokens: ArrayView2<'_, f32>) -> Self {
        let (rows, dim) = tokens.dim();
        let mut found = Self {
            images: 1,
            patches: rows as u64,
            ..Self::new(dim)
        };
        for token in tokens.rows() {
            found
                .mean
                .zip_mut_with(&token, |sum, &value| *sum += f64::from(value));
            found.keep(token.iter().map(|&value| f16::from_f32(value)).collect());
        }
        found.mean /= rows.max(1) as f64;
        let centered: Vec<f64> = tokens
            .rows()
            .into_iter()
            .flat_map(|token| {
                token
                    .into_iter()
                    .zip(&found.mean)
                    .map(|(&v, m)| f64::from(v) - m)
            })
            .collect();
        let data = MatRef::from_row_major_slice(&centered, rows, dim);
        let (lower, whole) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
        let (scatter, transposed) = (&mut found.scatter, data.transpose());
        triangular::matmul(
            scatter,
            lower,
            Accum::Replace,
            transposed,
            whole,
            data,
            whole,
            1.0,
            Par::Seq,
        );
        found
    }

    /// Adds those of other images with tokens of the same width.
    pub fn merge(&mut self, other: Self) {
        let (ours, theirs) = (self.patches as f64, other.patches as f64);
        let all = (ours + theirs).max(1.0);
        let apart = &other.mean - &self.mean;
        for column in 0..apart.len() {
            for row in column..apart.len() {
                self.scatter[(row, column)] += other.scatter[(row, column)]
                    + apart[row] * apart[column] * (ours * theirs / all);
            }
        }
        self.mean.scaled_add(theirs / all, &apart);
        self.images += other.images;
        self.patches += other.patches;
        other
            .sample
            .into_values()
            .for_each(|token| self.keep(token));
    }

    /// Takes a token into the sample if its hash is among the least.
    pub(super) fn keep(&mut self, token: Box<[f16]>) {
        let hash: [u8; 32] = Sha256::digest(bytemuck::cast_slice::<f16, u8>(&token)).into();
        if self.sample.len() < SAMPLE
            || self
                .sample
                .last_key_value()
                .is_some_and(|(largest, _)| hash < *largest)
        {
            self.sample.insert(hash, token);
        }
        if self.sample.len() > SAMPLE {
            self.sample.pop_last();
        }
    }

    /// Fits a basis of `count` components.
    ///
    /// # Errors
    /// As [`Pca::fit`].
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
            row.iter_mut()
                .zip(token)
                .for_each(|(value, kept)| *value = kept.to_f32());
        }
        Ok(Basis::new(pca, sample.view()))
    }

    /// How many images there were.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// How many patches these had.
    pub fn patches(&self) -> u64 {
        self.patches
    }
}
