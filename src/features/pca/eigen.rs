//! The first eigenvectors of a covariance.

use faer::{
    Accum, Mat, MatRef, Par, Side,
    linalg::matmul::{
        matmul,
        triangular::{self, BlockStructure},
    },
};

use crate::error::{Error, Result};

/// `scale · dataᵀ·data`, symmetric. Half of it is computed and copied to the other half.
pub(super) fn scaled_gram(data: MatRef<'_, f32>, scale: f32) -> Mat<f32> {
    let dim = data.ncols();
    let mut gram = Mat::<f32>::zeros(dim, dim);
    let (lower, whole) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    triangular::matmul(
        &mut gram,
        lower,
        Accum::Replace,
        data.transpose(),
        whole,
        data,
        whole,
        scale,
        Par::Seq,
    );
    for column in 0..dim {
        for row in column + 1..dim {
            gram[(column, row)] = gram[(row, column)];
        }
    }
    gram
}

/// Eigenvalues in falling order and their eigenvectors in columns.
pub(super) type Eigen = (Vec<f32>, Mat<f32>);

/// Directions that the subspace has beyond those that are sought; more make it converge in fewer
/// steps.
const OVERSAMPLING: usize = 12;
/// Steps after which the whole decomposition is the faster way.
const MOST_STEPS: usize = 20;
/// Residual `‖A·v − λ·v‖` relative to the largest eigenvalue, near what f32 can tell.
const RESIDUAL: f32 = 3e-6;

/// The `count` largest of a positive semi-definite matrix, or `None` if all are found faster.
pub(super) fn largest_eigen(symmetric: &Mat<f32>, count: usize) -> Option<Eigen> {
    let dim = symmetric.nrows();
    let width = count + OVERSAMPLING;
    if width * 4 > dim {
        return None;
    }
    // Any start will do that is not orthogonal to what is sought; a fixed one gives the same
    // colors each time.
    let mut state = 1u32;
    let mut subspace = Mat::<f32>::from_fn(dim, width, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    });
    let mut image = Mat::<f32>::zeros(dim, width);
    for _ in 0..MOST_STEPS {
        let basis = subspace.qr().compute_thin_Q();
        matmul(&mut image, Accum::Replace, symmetric, &basis, 1.0, Par::Seq);
        let mut quotient = Mat::<f32>::zeros(width, width);
        matmul(
            &mut quotient,
            Accum::Replace,
            basis.transpose(),
            &image,
            1.0,
            Par::Seq,
        );
        let (values, rotation) = all_eigen(&quotient).ok()?;
        let rotation = rotation.subcols(0, count);
        let vectors = &basis * rotation;
        let images = &image * rotation;
        let settled = |i: usize| {
            let residual = images.col(i) - vectors.col(i) * faer::Scale(values[i]);
            residual.norm_l2() <= RESIDUAL * values[0]
        };
        if values[0] > 0.0 && (0..count).all(settled) {
            return Some((values, vectors));
        }
        // Twice for each orthonormalization, which takes about as long.
        matmul(
            &mut subspace,
            Accum::Replace,
            symmetric,
            &image,
            1.0,
            Par::Seq,
        );
    }
    None
}

pub(super) fn all_eigen(symmetric: &Mat<f32>) -> Result<Eigen> {
    let eigen = symmetric.self_adjoint_eigen(Side::Lower).map_err(|error| {
        Error::internal(format!("the eigenvectors did not converge: {error:?}"))
    })?;
    // faer sorts by rising eigenvalue.
    let values = eigen.S().column_vector().iter().rev().copied().collect();
    Ok((values, eigen.U().reverse_cols().to_owned()))
}
