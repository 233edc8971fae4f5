//! Vectors in single precision.

use pulp::{Arch, Simd, WithSimd};

/// Writes the products of `rows`, `[products, dim]`, with a query. A row is summed in the same
/// order, alone or with others, so equal vectors have equal products.
pub(in super::super) fn products(query: &[f32], rows: &[f32], products: &mut [f32]) {
    Arch::new().dispatch(Products {
        query,
        rows,
        products,
    });
}

struct Products<'a> {
    query: &'a [f32],
    rows: &'a [f32],
    products: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            query,
            rows,
            products,
        } = self;
        let dim = query.len();
        let (query_lanes, query_tail) = S::as_simd_f32s(query);
        // Four rows at a time, from four distant addresses: the processor prefetches each stream,
        // and when one waits for the next memory page, the others continue.
        let quarter = products.len() / 4;
        let (quarters, remainder) = rows.split_at(4 * quarter * dim);
        let [a, b, c, d] = std::array::from_fn(|n| {
            quarters[n * quarter * dim..][..quarter * dim].chunks_exact(dim)
        });
        for (row, (((a, b), c), d)) in a.zip(b).zip(c).zip(d).enumerate() {
            let four = dots(simd, query_lanes, query_tail, [a, b, c, d]);
            for (n, product) in four.into_iter().enumerate() {
                products[n * quarter + row] = product;
            }
        }
        for (row, product) in remainder
            .chunks_exact(dim)
            .zip(&mut products[4 * quarter..])
        {
            [*product] = dots(simd, query_lanes, query_tail, [row]);
        }
    }
}

#[inline(always)]
fn dots<S: Simd, const N: usize>(
    simd: S,
    query: &[S::f32s],
    query_tail: &[f32],
    rows: [&[f32]; N],
) -> [f32; N] {
    let split = rows.map(|row| S::as_simd_f32s(row));
    let mut even = [simd.splat_f32s(0.0); N];
    let mut odd = even;
    let (pairs, last) = query.as_chunks::<2>();
    for (index, [first, second]) in pairs.iter().enumerate() {
        for n in 0..N {
            even[n] = simd.mul_add_f32s(*first, split[n].0[2 * index], even[n]);
            odd[n] = simd.mul_add_f32s(*second, split[n].0[2 * index + 1], odd[n]);
        }
    }
    if let [lanes] = last {
        for n in 0..N {
            even[n] = simd.mul_add_f32s(*lanes, split[n].0[2 * pairs.len()], even[n]);
        }
    }
    std::array::from_fn(|n| {
        let whole = simd.reduce_sum_f32s(simd.add_f32s(even[n], odd[n]));
        let tail: f32 = query_tail.iter().zip(split[n].1).map(|(a, b)| a * b).sum();
        whole + tail
    })
}
