//! Vectors in half precision.

use half::{f16, slice::HalfFloatSliceExt};

use super::{native, singles};

/// Writes the products of `rows`, `[products, dim]`, with a query. A row is summed in the same
/// order, alone or with others.
pub(in super::super) fn products(query: &[f32], rows: &[f16], products: &mut [f32]) {
    if native::half_products(query, rows, products) {
        return;
    }
    let mut single = vec![0.0; query.len()];
    for (row, product) in rows.chunks_exact(query.len()).zip(products) {
        row.convert_to_f32_slice(&mut single);
        singles::products(query, &single, std::slice::from_mut(product));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_rounded_values() {
        let mut random = fastrand::Rng::with_seed(5);
        for dim in [1, 7, 8, 9, 384, 1000] {
            let mut draw = || 2.0 * random.f32() - 1.0;
            let query: Vec<f32> = (0..dim).map(|_| draw()).collect();
            let values: Vec<f16> = (0..7 * dim).map(|_| f16::from_f32(draw())).collect();
            let mut found = [0.0; 7];
            products(&query, &values, &mut found);
            for (row, found) in values.chunks_exact(dim).zip(found) {
                let terms = row.iter().zip(&query);
                let expected: f64 = terms.map(|(a, b)| a.to_f64() * f64::from(*b)).sum();
                let error = (f64::from(found) - expected).abs();
                assert!(error < 1e-4, "{dim}: {found} {expected}");
                let mut alone = [0.0];
                products(&query, row, &mut alone);
                assert_eq!(alone[0].to_bits(), found.to_bits());
            }
        }
    }
}
