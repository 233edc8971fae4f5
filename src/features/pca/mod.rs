//! Principal components of patch tokens, as colors.
//!
//! Components are the first eigenvectors of the D×D covariance, by subspace iteration with
//! Rayleigh–Ritz steps (Golub & Van Loan, Matrix Computations, §8.2). It needs about ten thin
//! products, while all eigenvectors take D³ steps. If it does not converge fast, for example with
//! variances that lie close together, all eigenvectors are computed. The sign of a component is
//! arbitrary and therefore fixed: the entry of largest magnitude is positive, so that an image
//! always has the same colors.
//!
//! The images of a request share a basis that is fitted on them ([`maps`]). A stored [`Basis`] is
//! fitted on the [`Moments`] of any number of images, and gives the same part the same color in
//! every rendering ([`maps_in`]).

mod basis;
pub mod document;
mod eigen;
mod maps;
mod moments;

use eigen::Eigen;
use faer::{Mat, MatRef};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

pub use self::{
    basis::{Basis, Range},
    maps::{PcaMaps, foreground_of, joint_foreground, maps, maps_in},
    moments::Moments,
};
use crate::{
    error::{Error, Result},
    names::{option_enum, plural},
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
        let mean = tokens.mean_axis(Axis(0));
        let mean = mean.ok_or_else(|| Error::internal("there are no tokens"))?;
        let centered = &tokens - &mean;
        let data = centered.as_slice();
        let data = data.ok_or_else(|| Error::internal("a fresh array is contiguous"))?;
        let data = MatRef::from_row_major_slice(data, rows, dim);
        let lower = eigen::lower_gram(data, 1.0 / rows as f32);
        let covariance = Mat::from_fn(dim, dim, |row, column| {
            lower[(row.max(column), row.min(column))]
        });
        Self::of_covariance(mean, &covariance, count)
    }

    /// Computes the first `count` components of tokens with this mean and covariance.
    fn of_covariance(mean: Array1<f32>, covariance: &Mat<f32>, count: usize) -> Result<Self> {
        let dim = mean.len();
        let total: f32 = (0..dim).map(|i| covariance[(i, i)]).sum();
        let Eigen { values, vectors } = match eigen::largest_eigen(covariance, count) {
            Some(eigen) => eigen,
            None => eigen::all_eigen(covariance)?,
        };
        let mut components = Array2::zeros((count, dim));
        let mut explained = Vec::with_capacity(count);
        for (i, mut component) in components.rows_mut().into_iter().enumerate() {
            component.assign(&Array1::from_shape_fn(dim, |d| vectors[(d, i)]));
            let larger = |a: f32, &b: &f32| if b.abs() > a.abs() { b } else { a };
            component *= component.iter().fold(0.0, larger).signum();
            let variance = values[i].max(0.0);
            explained.push(if total > 0.0 { variance / total } else { 0.0 });
        }
        Ok(Self {
            mean,
            components,
            explained,
        })
    }

    /// Returns the basis of the first `count` components.
    fn first(&self, count: usize) -> Self {
        Self {
            mean: self.mean.clone(),
            components: self.components.slice(ndarray::s![..count, ..]).to_owned(),
            explained: self.explained[..count].to_vec(),
        }
    }

    /// Computes the coordinates of `tokens` `[n, dim]` in this basis: `[n, components]`.
    pub fn project(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        let shift = self.components.dot(&self.mean);
        tokens.dot(&self.components.t()) - shift
    }

    /// Returns the share of the total variance that each component explains.
    pub fn explained(&self) -> &[f32] {
        &self.explained
    }

    /// Returns the components, `[components, dim]`.
    pub fn components(&self) -> ArrayView2<'_, f32> {
        self.components.view()
    }

    /// Returns the mean, `[dim]`, which is subtracted from a token before it is projected.
    pub fn mean(&self) -> ArrayView1<'_, f32> {
        self.mean.view()
    }
}

/// Checks that `count` components can be fitted on `rows` patches.
fn check_count(count: usize, rows: usize, dim: usize) -> Result<()> {
    let max = dim.min(rows.saturating_sub(1));
    if (1..=max).contains(&count) {
        return Ok(());
    }
    let components = plural(count, "component");
    let patches = plural(rows, "patch");
    let advice = match max {
        0 => "give a larger `size` or more images, so that there are at least 2".to_owned(),
        1 => "use 1".to_owned(),
        _ => format!("use 1 to {max}"),
    };
    let detail = format!("{components} cannot be fitted on {patches} of dimension {dim}; {advice}");
    Err(Error::option("components", detail))
}
