//! Vectors in 8 bits a value, each scaled by its largest.

use super::native;

/// Number of products of 8-bit values whose sum fits `i32` in any case.
const SUMMED: usize = 1 << 16;

/// Codes of vectors.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct ByteCodes {
    /// `[rows, dim]`.
    values: Vec<i8>,
    /// What each value of a row is multiplied by.
    scales: Vec<f32>,
}

impl ByteCodes {
    pub(in super::super) fn with_capacity(dim: usize, rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows * dim),
            scales: Vec::with_capacity(rows),
        }
    }

    pub(in super::super) fn push(&mut self, vector: &[f32]) {
        let largest = vector
            .iter()
            .fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let values = vector.iter().map(|value| (value * scale).round() as i8);
        self.values.extend(values);
        self.scales.push(largest / 127.0);
    }

    pub(in super::super) fn push_from(&mut self, other: &Self, row: usize, dim: usize) {
        let values = &other.values[row * dim..(row + 1) * dim];
        self.values.extend_from_slice(values);
        self.scales.push(other.scales[row]);
    }

    /// Writes the estimated products of the rows from `first` on with a query.
    pub(in super::super) fn estimate(
        &self,
        query: &ByteQuery,
        first: usize,
        estimates: &mut [f32],
    ) {
        let dim = query.values.len();
        let (first_value, end) = (first * dim, first + estimates.len());
        let rows = &self.values[first_value..end * dim];
        let mut products = vec![0; estimates.len()];
        let fits = dim <= SUMMED;
        if !fits || !native::byte_products(&query.values, rows, &mut products) {
            for (row, product) in rows.chunks_exact(dim).zip(&mut products) {
                *product = product_of(row, &query.values);
            }
        }
        let scales = &self.scales[first..end];
        for ((estimate, product), scale) in estimates.iter_mut().zip(products).zip(scales) {
            *estimate = product as f32 * scale * query.scale;
        }
    }
}

/// Adds products up to the largest number, which no vector of a length of 1 reaches.
fn product_of(row: &[i8], query: &[i16]) -> i32 {
    let parts = row.chunks(SUMMED).zip(query.chunks(SUMMED));
    let sums = parts.map(|(a, b)| {
        let products = a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b));
        products.sum::<i32>()
    });
    sums.fold(0, i32::saturating_add)
}

/// A query, encoded as the rows are.
#[derive(Debug)]
pub(in super::super) struct ByteQuery {
    values: Vec<i16>,
    scale: f32,
}

impl ByteQuery {
    pub(in super::super) fn new(query: &[f32]) -> Self {
        let mut codes = ByteCodes::with_capacity(query.len(), 1);
        codes.push(query);
        Self {
            values: codes.values.into_iter().map(i16::from).collect(),
            scale: codes.scales[0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_of_whole_numbers_are_exact() {
        let mut random = fastrand::Rng::with_seed(7);
        for dim in (1..70).chain([384, 1000, 4096]) {
            // Whole numbers up to 127 are encoded exactly.
            let mut draw = || -> Vec<f32> {
                let rest = (1..dim).map(|_| f32::from(random.i8(-127..=127)));
                std::iter::once(127.0).chain(rest).collect()
            };
            let (a, b, query) = (draw(), draw(), draw());
            let codes_of = |vectors: &[&Vec<f32>]| {
                let mut codes = ByteCodes::with_capacity(dim, vectors.len());
                vectors.iter().for_each(|vector| codes.push(vector));
                codes
            };
            let mut codes = codes_of(&[&a, &b]);
            codes.push_from(&codes.clone(), 0, dim);
            let mut estimates = [0.0; 2];
            codes.estimate(&ByteQuery::new(&query), 1, &mut estimates);
            for (vector, found) in [&b, &a].into_iter().zip(estimates) {
                let expected: f64 = vector
                    .iter()
                    .zip(&query)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                let tolerance = 1e-6 * 127.0 * 127.0 * dim as f64;
                let error = (f64::from(found) - expected).abs();
                assert!(error < tolerance, "{dim}: {found} {expected}");
            }
        }
    }

    /// Instructions of the processor give the same sums.
    #[test]
    fn native_products_are_those_of_the_loop() {
        let mut random = fastrand::Rng::with_seed(8);
        for dim in [1, 15, 16, 17, 384, 1001] {
            let rows: Vec<i8> = (0..9 * dim).map(|_| random.i8(-127..=127)).collect();
            let query: Vec<i16> = (0..dim).map(|_| random.i8(-127..=127).into()).collect();
            let mut products = [0; 9];
            if native::byte_products(&query, &rows, &mut products) {
                let expected = rows.chunks_exact(dim).map(|row| product_of(row, &query));
                assert!(expected.eq(products), "{dim}");
            }
        }
    }

    #[test]
    fn a_vector_of_zeros_has_the_product_0() {
        let mut codes = ByteCodes::default();
        codes.push(&[0.0, 0.0]);
        let mut estimates = [1.0];
        codes.estimate(&ByteQuery::new(&[0.5, 0.1]), 0, &mut estimates);
        assert_eq!(estimates, [0.0]);
    }
}
