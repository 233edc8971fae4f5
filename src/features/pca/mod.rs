//! Principal components of patch tokens, as colors.
//!
//! The first eigenvectors of the D×D covariance, by subspace iteration with Rayleigh–Ritz steps
//! (Golub & Van Loan, Matrix Computations, §8.2), which needs about ten thin products where all
//! eigenvectors take D³ steps. Where it does not converge fast, as among variances that lie close
//! together, all are computed. The sign of a component is free, so it is fixed: the entry of
//! largest magnitude is positive, and the same image always has the same colors.
//!
//! The images of a request share a basis of their own ([`maps`]). A [`Basis`] is kept: it is fitted
//! on the [`Moments`] of any number of images, and gives the same part the same color in every
//! picture ([`maps_in`]).

mod basis;
pub mod document;
mod eigen;
mod maps;
mod moments;

use faer::{Mat, MatRef};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

pub use self::{
    basis::{Basis, Range},
    maps::{PcaMaps, foreground_of, maps, maps_in},
    moments::Moments,
};
use crate::{
    error::{Error, Result},
    names::option_enum,
};

option_enum! {
    /// Patches that the components are fitted on and shown for.
    #[derive(Default)]
    pub enum Foreground {
        /// All patches.
        #[default]
        None,
        /// Only the foreground: the side of the first component that the attention of CLS favors.
        /// The rest is black.
        Auto,
    }
}

/// A fitted basis.
#[derive(Debug, Clone)]
pub struct Pca {
    mean: Array1<f32>,
    /// `[components, dim]`, orthonormal rows, by falling variance.
    components: Array2<f32>,
    /// Share of the total variance that each component explains.
    explained: Vec<f32>,
}

impl Pca {
    /// Fits `count` components on the rows of `tokens` `[n, dim]`.
    ///
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] if there are fewer than two rows, or more components
    /// than dimensions or than rows allow.
    pub fn fit(tokens: ArrayView2<'_, f32>, count: usize) -> Result<Self> {
        let (rows, dim) = tokens.dim();
        check_count(count, rows, dim)?;
        let mean = tokens
            .mean_axis(Axis(0))
            .ok_or_else(|| Error::internal("there are no tokens"))?;
        let centered = &tokens - &mean;
        let data = centered
            .as_slice()
            .ok_or_else(|| Error::internal("a fresh array is contiguous"))?;
        let data = MatRef::from_row_major_slice(data, rows, dim);
        Self::of_covariance(mean, &eigen::scaled_gram(data, 1.0 / rows as f32), count)
    }

    /// The first `count` components of tokens with this mean and covariance.
    fn of_covariance(mean: Array1<f32>, covariance: &Mat<f32>, count: usize) -> Result<Self> {
        let dim = mean.len();
        let total: f32 = (0..dim).map(|i| covariance[(i, i)]).sum();
        let (values, vectors) = match eigen::largest_eigen(covariance, count) {
            Some(found) => found,
            None => eigen::all_eigen(covariance)?,
        };
        let mut components = Array2::zeros((count, dim));
        let mut explained = Vec::with_capacity(count);
        for (i, mut component) in components.rows_mut().into_iter().enumerate() {
            component
                .iter_mut()
                .enumerate()
                .for_each(|(d, v)| *v = vectors[(d, i)]);
            let largest = component
                .iter()
                .copied()
                .fold(0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
            component *= largest.signum();
            explained.push(if total > 0.0 {
                values[i].max(0.0) / total
            } else {
                0.0
            });
        }
        Ok(Self {
            mean,
            components,
            explained,
        })
    }

    /// The first `count` components alone.
    fn first(&self, count: usize) -> Self {
        let components = self.components.slice(ndarray::s![..count, ..]).to_owned();
        Self {
            mean: self.mean.clone(),
            components,
            explained: self.explained[..count].to_vec(),
        }
    }

    /// Coordinates of `tokens` `[n, dim]` in this basis: `[n, components]`.
    pub fn project(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        let shift = self.components.dot(&self.mean);
        tokens.dot(&self.components.t()) - shift
    }

    /// Share of the total variance that each component explains.
    pub fn explained(&self) -> &[f32] {
        &self.explained
    }

    /// `[components, dim]`.
    pub fn components(&self) -> ArrayView2<'_, f32> {
        self.components.view()
    }
    /// `[dim]`: what is taken off a token before it is projected.
    pub fn mean(&self) -> ArrayView1<'_, f32> {
        self.mean.view()
    }
}

/// # Errors
/// [`crate::error::Kind::InvalidOption`] if `rows` patches cannot have `count` components.
fn check_count(count: usize, rows: usize, dim: usize) -> Result<()> {
    let most = dim.min(rows.saturating_sub(1));
    if (1..=most).contains(&count) {
        return Ok(());
    }
    let detail = format!(
        "{count} components cannot be fitted on {rows} patches of dimension {dim}; use 1 to {most}"
    );
    Err(Error::option("components", detail))
}
