//! Products by instructions that pulp does not have. Each function returns false, and does nothing,
//! on a processor without them.

#![allow(
    unsafe_code,
    reason = "the processor is asked for the instructions before they are used"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "several arrays have the same index"
)]

use half::f16;

/// Writes the products of `rows`, `[products, dim]`, with a query.
pub(super) fn half_products(query: &[f32], rows: &[f16], products: &mut [f32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
    {
        // SAFETY: the processor has the instructions.
        unsafe { x86::half_products(query, rows, products) };
        return true;
    }
    let _ = (query, rows, products);
    false
}

/// Writes the products of `rows`, `[products, dim]`, with a query.
pub(super) fn byte_products(query: &[i16], rows: &[i8], products: &mut [i32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions.
        unsafe { x86::byte_products(query, rows, products) };
        return true;
    }
    let _ = (query, rows, products);
    false
}

/// Adds, for each of 32 rows, the entries of 16-byte tables at the row's half bytes. A row has its
/// half bytes at one place in all 16-byte groups of `codes`: rows 0 to 15 the low halves, the
/// others the high halves. Entries are at most 63, and there are at most 1024 pairs of tables.
pub(super) fn table_sums(codes: &[[u8; 32]], tables: &[[u8; 32]], sums: &mut [u32; 32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions.
        unsafe { x86::table_sums(codes, tables, sums) };
        return true;
    }
    let _ = (codes, tables, sums);
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    /// Calls `dots` for four rows at a time, from four distant addresses, as products in single
    /// precision do.
    #[inline(always)]
    fn by_four<T, P: Copy>(
        dim: usize,
        rows: &[T],
        products: &mut [P],
        four: impl Fn([&[T]; 4]) -> [P; 4],
        one: impl Fn(&[T]) -> P,
    ) {
        let quarter = products.len() / 4;
        for row in 0..quarter {
            let rows = std::array::from_fn(|n| &rows[(n * quarter + row) * dim..][..dim]);
            for (n, product) in four(rows).into_iter().enumerate() {
                products[n * quarter + row] = product;
            }
        }
        let remainder = rows[4 * quarter * dim..].chunks_exact(dim);
        for (row, product) in remainder.zip(&mut products[4 * quarter..]) {
            *product = one(row);
        }
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    pub(super) fn half_products(query: &[f32], rows: &[f16], products: &mut [f32]) {
        by_four(
            query.len(),
            rows,
            products,
            |rows| half_dots(query, rows),
            |row| half_dots(query, [row])[0],
        );
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    fn half_dots<const N: usize>(query: &[f32], rows: [&[f16]; N]) -> [f32; N] {
        let (parts, tail) = query.as_chunks::<8>();
        let rows = rows.map(|row| row.as_chunks::<8>());
        let mut sums = [_mm256_setzero_ps(); N];
        for (part, query) in parts.iter().enumerate() {
            let query: __m256 = bytemuck::cast(*query);
            for n in 0..N {
                let values: [u16; 8] = bytemuck::cast(rows[n].0[part]);
                let values = _mm256_cvtph_ps(bytemuck::cast(values));
                sums[n] = _mm256_fmadd_ps(values, query, sums[n]);
            }
        }
        std::array::from_fn(|n| {
            let lanes: [f32; 8] = bytemuck::cast(sums[n]);
            let tail = rows[n].1.iter().zip(tail);
            lanes.iter().sum::<f32>() + tail.map(|(a, b)| a.to_f32() * b).sum::<f32>()
        })
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn byte_products(query: &[i16], rows: &[i8], products: &mut [i32]) {
        by_four(
            query.len(),
            rows,
            products,
            |rows| byte_dots(query, rows),
            |row| byte_dots(query, [row])[0],
        );
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn byte_dots<const N: usize>(query: &[i16], rows: [&[i8]; N]) -> [i32; N] {
        let (parts, tail) = query.as_chunks::<16>();
        let rows = rows.map(|row| row.as_chunks::<16>());
        let mut sums = [_mm256_setzero_si256(); N];
        for (part, query) in parts.iter().enumerate() {
            let query: __m256i = bytemuck::cast(*query);
            for n in 0..N {
                let values = _mm256_cvtepi8_epi16(bytemuck::cast(rows[n].0[part]));
                sums[n] = _mm256_add_epi32(sums[n], _mm256_madd_epi16(values, query));
            }
        }
        std::array::from_fn(|n| {
            let lanes: [i32; 8] = bytemuck::cast(sums[n]);
            let tail = rows[n].1.iter().zip(tail);
            lanes.iter().sum::<i32>()
                + tail
                    .map(|(&a, &b)| i32::from(a) * i32::from(b))
                    .sum::<i32>()
        })
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn table_sums(codes: &[[u8; 32]], tables: &[[u8; 32]], sums: &mut [u32; 32]) {
        let low_half = _mm256_set1_epi8(15);
        // Sums of two bytes in 16 bits, and of the higher of the two alone, for low halves and
        // high halves.
        let mut both = [_mm256_setzero_si256(); 2];
        let mut higher = both;
        // Four entries fit a byte.
        for (codes, tables) in codes.chunks(4).zip(tables.chunks(4)) {
            let mut bytes = [_mm256_setzero_si256(); 2];
            for (codes, table) in codes.iter().zip(tables) {
                let codes: __m256i = bytemuck::cast(*codes);
                let table: __m256i = bytemuck::cast(*table);
                let halves = [codes, _mm256_srli_epi16::<4>(codes)];
                for n in 0..2 {
                    let entries = _mm256_shuffle_epi8(table, _mm256_and_si256(halves[n], low_half));
                    bytes[n] = _mm256_add_epi8(bytes[n], entries);
                }
            }
            for n in 0..2 {
                both[n] = _mm256_add_epi16(both[n], bytes[n]);
                higher[n] = _mm256_add_epi16(higher[n], _mm256_srli_epi16::<8>(bytes[n]));
            }
        }
        for n in 0..2 {
            let lower = _mm256_sub_epi16(both[n], _mm256_slli_epi16::<8>(higher[n]));
            let lower: [u16; 16] = bytemuck::cast(lower);
            let higher: [u16; 16] = bytemuck::cast(higher[n]);
            for pair in 0..8 {
                let sum = |values: [u16; 16]| u32::from(values[pair]) + u32::from(values[pair + 8]);
                sums[16 * n + 2 * pair] += sum(lower);
                sums[16 * n + 2 * pair + 1] += sum(higher);
            }
        }
    }
}
