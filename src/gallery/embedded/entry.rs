//! An entry of the approximate index: a vector in 8 bits, and the distance between two of them.
//!
//! The values are scaled by the largest of the vector, which does not change the cosine. Four bytes
//! after them hold one over their length, so that a distance needs a single dot product. usearch's
//! own distances are in a library of C for many types and processors, which took a sixth of the
//! time of the server's build.

#![allow(
    unsafe_code,
    reason = "usearch passes vectors as pointers; the contract is below"
)]

use pulp::{Arch, Simd, WithSimd};
use usearch::Index;

/// Number of bytes of one over the length.
const INVERSE_LENGTH: usize = size_of::<f32>();
/// Number of products of 8-bit values whose sum fits `i32` in any case.
const SUMMED: usize = 1 << 16;

/// Returns the number of bytes of an entry.
pub(super) fn entry_len(dim: usize) -> usize {
    dim + INVERSE_LENGTH
}

/// Encodes a vector.
pub(super) fn encode(vector: &[f32], to: &mut Vec<i8>) {
    let largest = vector
        .iter()
        .fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    to.clear();
    to.extend(vector.iter().map(|value| (value * scale).round() as i8));
    let square: i64 = to.iter().map(|&value| i64::from(value).pow(2)).sum();
    let inverse = if square > 0 {
        (1.0 / (square as f64).sqrt()) as f32
    } else {
        0.0
    };
    to.extend(inverse.to_ne_bytes().map(u8::cast_signed));
}

/// Makes an index of entries use 1 − cosine as its distance.
pub(super) fn use_cosine(index: &mut Index) {
    let arch = Arch::new();
    let len = index.dimensions();
    index.change_metric::<i8>(Box::new(move |a, b| {
        // SAFETY: both point to an entry of the index, or of a caller who adds or searches. usearch
        // checks that the latter have the `len` bytes of the index's dimensions, and stores the
        // former with as many. For an index from a file, its checksum says that usearch wrote it.
        let [a, b] = [a, b].map(|entry| unsafe { std::slice::from_raw_parts(entry, len) });
        one_minus_cosine(arch, a, b)
    }));
}

/// Computes 1 − cosine of two entries of the same number of values, 0 to 2 but for rounding; 1 if
/// one is zero.
fn one_minus_cosine(arch: Arch, a: &[i8], b: &[i8]) -> f32 {
    let (Some((a, a_inverse)), Some((b, b_inverse))) = (
        a.split_last_chunk::<INVERSE_LENGTH>(),
        b.split_last_chunk::<INVERSE_LENGTH>(),
    ) else {
        return 1.0;
    };
    let [a_inverse, b_inverse] =
        [a_inverse, b_inverse].map(|bytes| f32::from_ne_bytes(bytes.map(i8::cast_unsigned)));
    1.0 - arch.dispatch(DotProduct { a, b }) as f32 * a_inverse * b_inverse
}

/// A dot product, which is exact.
struct DotProduct<'a> {
    a: &'a [i8],
    b: &'a [i8],
}

impl WithSimd for DotProduct<'_> {
    type Output = i64;

    /// The compiler makes vector instructions of the inner loop.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> i64 {
        let parts = self.a.chunks(SUMMED).zip(self.b.chunks(SUMMED));
        let sums = parts.map(|(a, b)| {
            let products = a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b));
            i64::from(products.sum::<i32>())
        });
        sums.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        let mut entries = [Vec::new(), Vec::new()];
        for (vector, entry) in [a, b].into_iter().zip(&mut entries) {
            encode(vector, entry);
            assert_eq!(entry.len(), entry_len(vector.len()));
        }
        one_minus_cosine(Arch::new(), &entries[0], &entries[1])
    }

    #[test]
    fn distances_are_those_of_the_cosine_for_all_lengths() {
        let mut random = fastrand::Rng::with_seed(7);
        for dim in (1..70).chain([384, 1000, 4096]) {
            // Whole numbers up to 127 are encoded exactly.
            let mut draw = || -> Vec<f32> {
                let rest = (1..dim).map(|_| f32::from(random.i8(-127..=127)));
                std::iter::once(127.0).chain(rest).collect()
            };
            let (a, b) = (draw(), draw());
            let dot = |x: &[f32], y: &[f32]| -> f64 {
                let terms = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y));
                terms.sum()
            };
            let expected = 1.0 - dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
            let found = f64::from(distance(&a, &b));
            assert!((found - expected).abs() < 1e-6, "{dim}: {found} {expected}");
        }
    }

    #[test]
    fn a_scaled_vector_is_at_distance_0_an_opposite_one_at_2_and_zero_at_1() {
        let near = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-6, "{found}");
        near(distance(&[0.3, -0.1], &[3e-9, -1e-9]), 0.0);
        near(distance(&[0.0, 5.0], &[0.0, -3.0]), 2.0);
        near(distance(&[0.0, 0.0], &[1.0, 0.0]), 1.0);
        near(distance(&[1e-30; 500_000], &[9.0; 500_000]), 0.0);
    }
}
