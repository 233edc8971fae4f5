//! The first eigenvectors of a covariance.

use faer::{
    Accum, Mat, MatRef, Par, Side,
    linalg::matmul::{
        matmul,
        triangular::{self, BlockStructure},
    },
    traits::ComplexField,
};

use crate::error::{Error, Result};

/// Computes the lower triangle of the symmetric `scale · dataᵀ·data`; the rest is 0.
pub(super) fn lower_gram<T: ComplexField>(data: MatRef<'_, T>, scale: T) -> Mat<T> {
    let mut gram = Mat::zeros(data.ncols(), data.ncols());
    triangular::matmul(
        &mut gram,
        BlockStructure::TriangularLower,
        Accum::Replace,
        data.transpose(),
        BlockStructure::Rectangular,
        data,
        BlockStructure::Rectangular,
        scale,
        Par::Seq,
    );
    gram
}

/// Eigenvalues and eigenvectors.
pub(super) struct Eigen {
    /// Eigenvalues in descending order.
    pub(super) values: Vec<f32>,
    /// Eigenvectors in columns.
    pub(super) vectors: Mat<f32>,
}

/// Number of directions of the subspace beyond the requested ones; more make it converge in fewer
/// steps.
const OVERSAMPLING: usize = 12;
/// Number of steps after which the whole decomposition is faster.
const MAX_STEPS: usize = 20;
/// Residual `‖A·v − λ·v‖` relative to the largest eigenvalue, near the precision of f32.
const RESIDUAL: f32 = 3e-6;

/// Computes the `count` largest eigenvalues of a positive semi-definite matrix; `None` if computing
/// all is faster.
pub(super) fn largest_eigen(symmetric: &Mat<f32>, count: usize) -> Option<Eigen> {
    let dim = symmetric.nrows();
    let width = count + OVERSAMPLING;
    if width * 4 > dim {
        return None;
    }
    // Any start works that is not orthogonal to the eigenvectors; a fixed one gives the same colors
    // each time.
    let mut state = 1u32;
    let mut subspace = Mat::<f32>::from_fn(dim, width, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    });
    let mut image = Mat::<f32>::zeros(dim, width);
    let product = |to: &mut Mat<f32>, a: MatRef<'_, f32>, b: &Mat<f32>| {
        matmul(to, Accum::Replace, a, b, 1.0, Par::Seq);
    };
    for _ in 0..MAX_STEPS {
        let basis = subspace.qr().compute_thin_Q();
        product(&mut image, symmetric.as_ref(), &basis);
        let mut quotient = Mat::<f32>::zeros(width, width);
        product(&mut quotient, basis.transpose(), &image);
        let Eigen { values, vectors } = all_eigen(&quotient).ok()?;
        let rotation = vectors.subcols(0, count);
        let vectors = &basis * rotation;
        let images = &image * rotation;
        let converged = (0..count).all(|i| {
            let residual = images.col(i) - vectors.col(i) * faer::Scale(values[i]);
            residual.norm_l2() <= RESIDUAL * values[0]
        });
        if values[0] > 0.0 && converged {
            return Some(Eigen { values, vectors });
        }
        // Two products for each orthonormalization, which takes about as long.
        product(&mut subspace, symmetric.as_ref(), &image);
    }
    None
}

/// Computes all eigenvalues of a symmetric matrix.
pub(super) fn all_eigen(symmetric: &Mat<f32>) -> Result<Eigen> {
    let eigen = symmetric.self_adjoint_eigen(Side::Lower).map_err(|error| {
        Error::internal(format!("the eigenvectors did not converge: {error:?}"))
    })?;
    // faer sorts in ascending order.
    let values = eigen.S().column_vector().iter().rev().copied().collect();
    let vectors = eigen.U().reverse_cols().to_owned();
    Ok(Eigen { values, vectors })
}
