//! Principal components where they are easy, and where they are not.

use dinoserve::features::pca::Pca;
use ndarray::{Array2, Axis};

use crate::support::difference;

/// Reproducible values in −1..1 without structure.
fn noise(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The rows of `fitted` are orthonormal and explain falling shares.
#[track_caller]
fn assert_is_basis(fitted: &Pca) {
    let product = fitted.components().dot(&fitted.components().t());
    let (largest, _) = difference(&product, &Array2::eye(product.nrows()));
    assert!(largest < 1e-4, "not orthonormal by {largest}");
    assert!(fitted.explained().windows(2).all(|pair| pair[0] >= pair[1] - 1e-6), "{:?}", fitted.explained());
}

#[test]
fn the_first_components_are_those_of_the_whole_decomposition() {
    // A few strong directions over noise, as patch tokens have them, and pure noise, whose variances lie close together.
    let structured = noise(1369, 12, 1).dot(&(noise(12, 384, 2) * 3.0)) + noise(1369, 384, 3);
    for (tokens, tolerance) in [(structured, 2e-4), (noise(300, 384, 4), 2e-2)] {
        let few = Pca::fit(tokens.view(), 3).unwrap();
        // So many that all eigenvectors are computed.
        let many = Pca::fit(tokens.view(), 60).unwrap();
        assert_is_basis(&few);
        assert_is_basis(&many);
        let expected = many.components().slice_move(ndarray::s![..3, ..]).to_owned();
        let (largest, _) = difference(few.components(), &expected);
        assert!(largest < tolerance, "{largest}");
        assert!(difference(few.explained(), &many.explained()[..3]).0 < 1e-4);
    }
}

#[test]
fn equal_variances_and_none_at_all_still_give_a_basis() {
    let constant = Array2::from_elem((100, 64), 0.5);
    let line = noise(100, 1, 5).dot(&noise(1, 64, 6));
    let mut circle = Array2::zeros((128, 64));
    for (index, mut row) in circle.axis_iter_mut(Axis(0)).enumerate() {
        row[index % 64] = if index < 64 { 1.0 } else { -1.0 };
    }
    for tokens in [constant, line, circle] {
        let fitted = Pca::fit(tokens.view(), 3).unwrap();
        assert_is_basis(&fitted);
        assert!(fitted.project(tokens.view()).iter().all(|value| value.is_finite()));
    }
}
