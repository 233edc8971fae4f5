//! A fixed random rotation, after which no few values of a vector hold most of its length.

use pulp::{Arch, Simd, WithSimd};

/// Number of rounds. With widths that are no power of two, each mixes only a part of the values.
const ROUNDS: usize = 4;

/// A rotation of vectors of one width. The same for all vectors of that width, in all processes.
#[derive(Debug)]
pub(in super::super) struct Rotation {
    /// Signs by which each round multiplies: `[dim]` each.
    signs: [Vec<f32>; ROUNDS],
}

impl Rotation {
    pub(in super::super) fn new(dim: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(0x5eed);
        let mut sign = || if random.bool() { 1.0 } else { -1.0 };
        let signs = std::array::from_fn(|_| (0..dim).map(|_| sign()).collect());
        Self { signs }
    }

    /// Rotates a vector of the width of this rotation. Lengths and products stay the same.
    pub(in super::super) fn apply(&self, vector: &mut [f32]) {
        let signs = &self.signs;
        Arch::new().dispatch(Rotate { signs, vector });
    }
}

struct Rotate<'a> {
    signs: &'a [Vec<f32>; ROUNDS],
    vector: &'a mut [f32],
}

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Some(power) = self.vector.len().checked_ilog2() else {
            return;
        };
        let part = 1 << power;
        for (round, signs) in self.signs.iter().enumerate() {
            for (value, sign) in self.vector.iter_mut().zip(signs) {
                *value *= sign;
            }
            // The first and the last values overlap if they are not all.
            let from = match round % 2 {
                0 => 0,
                _ => self.vector.len() - part,
            };
            hadamard(&mut self.vector[from..from + part]);
        }
    }
}

/// Multiplies by the orthonormal Hadamard matrix; the number of values is a power of two.
#[inline(always)]
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (first, second) = pair.split_at_mut(half);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (values.len() as f32).sqrt();
    values.iter_mut().for_each(|value| *value *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_stay_and_single_values_are_spread() {
        for dim in [1, 2, 3, 31, 384, 768, 1000, 1024, 1536] {
            let rotation = Rotation::new(dim);
            let mut random = fastrand::Rng::with_seed(dim as u64);
            let mut draw = || -> Vec<f32> { (0..dim).map(|_| random.f32() - 0.5).collect() };
            let (a, b) = (draw(), draw());
            let rotated = |vector: &[f32]| {
                let mut rotated = vector.to_vec();
                rotation.apply(&mut rotated);
                rotated
            };
            let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
            let (before, after) = (dot(&a, &b), dot(&rotated(&a), &rotated(&b)));
            assert!(
                (before - after).abs() < 1e-4 * dim as f32,
                "{dim}: {before} {after}"
            );
            let mut single = vec![0.0; dim];
            single[dim / 3] = 1.0;
            let largest = rotated(&single)
                .into_iter()
                .fold(0.0, |max: f32, v| max.max(v.abs()));
            assert!(largest < 6.0 / (dim as f32).sqrt(), "{dim}: {largest}");
        }
    }
}
