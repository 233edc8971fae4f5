//! Dot products of many vectors.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use ndarray::Array2;

/// Rows of a block of the product. A block of 4096 columns then takes 1 MiB.
const BLOCK: usize = 64;

/// Computes the dot products of each row of `left` with all rows of `right`, and passes them to
/// `work` with the index of the row, in order. The product is made in blocks, so that it takes
/// little memory. Both matrices are in standard layout, with rows of one width.
pub(super) fn for_each_row(
    left: &Array2<f32>,
    right: &Array2<f32>,
    mut work: impl FnMut(usize, &mut [f32]),
) {
    let (rows, dim) = left.dim();
    let columns = right.nrows();
    let left = left.as_slice().expect("in standard layout");
    let right = right.as_slice().expect("in standard layout");
    let right = MatRef::from_row_major_slice(right, columns, dim);
    let mut product = vec![0.0_f32; BLOCK * columns];
    for start in (0..rows).step_by(BLOCK) {
        let height = BLOCK.min(rows - start);
        let block = &left[start * dim..(start + height) * dim];
        let product = &mut product[..height * columns];
        matmul(
            MatMut::from_row_major_slice_mut(product, height, columns),
            Accum::Replace,
            MatRef::from_row_major_slice(block, height, dim),
            right.transpose(),
            1.0,
            Par::Seq,
        );
        for (offset, products) in product.chunks_mut(columns).enumerate() {
            work(start + offset, products);
        }
    }
}

/// Computes a dot product in lanes that the compiler vectorizes. The vectors have one length.
#[inline(always)]
pub(super) fn dot(one: &[f32], other: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let (one, one_rest) = one.as_chunks::<LANES>();
    let (other, other_rest) = other.as_chunks::<LANES>();
    for (one, other) in one.iter().zip(other) {
        for ((lane, one), other) in lanes.iter_mut().zip(one).zip(other) {
            *lane += one * other;
        }
    }
    let rest = one_rest.iter().zip(other_rest);
    lanes.iter().sum::<f32>() + rest.map(|(one, other)| one * other).sum::<f32>()
}

/// Returns the largest value, in lanes that the compiler vectorizes; minus infinity if there is
/// none.
pub(super) fn largest(values: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let values = lanes.iter().chain(rest);
    values.copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_are_those_of_the_whole_product() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut matrix = |rows| Array2::from_shape_simple_fn((rows, 7), || random.f32() - 0.5);
        let (left, right) = (matrix(2 * BLOCK + 3), matrix(11));
        let expected = left.dot(&right.t());
        let mut next = 0;
        for_each_row(&left, &right, |row, products| {
            assert_eq!(row, next);
            next += 1;
            for (found, expected) in products.iter().zip(expected.row(row)) {
                assert!((found - expected).abs() < 1e-5);
            }
        });
        assert_eq!(next, left.nrows());
    }
}
