//! Vectors in one bit a value (RaBitQ, Gao and Long, 2024).
//!
//! Of a rotated vector, the signs of its difference from a center are kept, and two numbers with
//! which the product with a query is estimated without bias. The product of a query with four
//! signs is looked up in a table of 16 (as in André et al., 2015).

use pulp::{Arch, Simd, WithSimd};

use super::native;

/// Number of rows that are computed together.
const ROWS: usize = 32;
/// Number of values in a pair of tables.
const VALUES: usize = 8;
/// Number of pairs of tables whose sums fit 16 bits.
const SUMMED: usize = 1024;
/// Largest sum of the sizes of four values of a query, with room for their rounding below 63.
const LARGEST: f32 = 59.0;
/// Adding it to a small number rounds that number to the nearest whole one: 1.5 × 2²³.
const ROUNDING: f32 = 12_582_912.0;

/// Signs of eight values of the rows of a block: the first four, then the others. A half byte has
/// those of a row; the lower halves are of the first 16 rows.
pub(in super::super) type Signs = [u8; 32];

/// Codes of vectors, in blocks of [`ROWS`] rows.
#[derive(Debug, Clone)]
pub(in super::super) struct BitCodes {
    /// Number of [`Signs`] of a block.
    pairs: usize,
    len: usize,
    /// `[blocks, pairs]`.
    signs: Vec<Signs>,
    /// By how much the product of the query with the signs is multiplied.
    factors: Vec<[f32; ROWS]>,
    /// Product of the center with the difference from it.
    offsets: Vec<[f32; ROWS]>,
}

/// Parts of [`BitCodes`], as they are stored.
pub(in super::super) struct RawCodes<'a> {
    pub(in super::super) signs: &'a [Signs],
    pub(in super::super) factors: &'a [[f32; ROWS]],
    pub(in super::super) offsets: &'a [[f32; ROWS]],
}

impl BitCodes {
    /// Returns codes without rows, with room for `rows` rows of `dim` values.
    pub(in super::super) fn with_capacity(dim: usize, rows: usize) -> Self {
        let (pairs, blocks) = Self::sizes(dim, rows);
        Self {
            pairs,
            len: 0,
            signs: Vec::with_capacity(blocks * pairs),
            factors: Vec::with_capacity(blocks),
            offsets: Vec::with_capacity(blocks),
        }
    }

    /// Returns the number of [`Signs`] of a block, and the number of blocks.
    pub(in super::super) fn sizes(dim: usize, rows: usize) -> (usize, usize) {
        (dim.div_ceil(VALUES), rows.div_ceil(ROWS))
    }

    /// Adds a row; `vector` and `center` are rotated: `[dim]`.
    pub(in super::super) fn push(&mut self, vector: &[f32], center: &[f32]) {
        let (block, row) = self.next_row();
        let signs = &mut self.signs[block * self.pairs..];
        let encoded = Arch::new().dispatch(Encode {
            vector,
            center,
            row,
            signs,
        });
        self.factors[block][row] = encoded.factor;
        self.offsets[block][row] = encoded.offset;
    }

    /// Adds a row of other codes with the same center.
    pub(in super::super) fn push_from(&mut self, other: &Self, row: usize) {
        let (from, from_row) = (row / ROWS, row % ROWS);
        let (block, row) = self.next_row();
        for pair in 0..self.pairs {
            let signs = eight(&other.signs[from * self.pairs + pair], from_row);
            set_eight(&mut self.signs[block * self.pairs + pair], row, signs);
        }
        self.factors[block][row] = other.factors[from][from_row];
        self.offsets[block][row] = other.offsets[from][from_row];
    }

    /// Makes room for a row, and returns its block and its place there.
    fn next_row(&mut self) -> (usize, usize) {
        let place = (self.len / ROWS, self.len % ROWS);
        if place.1 == 0 {
            self.signs.resize(self.signs.len() + self.pairs, [0; 32]);
            self.factors.push([0.0; ROWS]);
            self.offsets.push([0.0; ROWS]);
        }
        self.len += 1;
        place
    }

    /// Gives back memory that is not used.
    pub(in super::super) fn shrink(&mut self) {
        self.signs.shrink_to_fit();
        self.factors.shrink_to_fit();
        self.offsets.shrink_to_fit();
    }

    pub(in super::super) fn raw(&self) -> RawCodes<'_> {
        RawCodes {
            signs: &self.signs,
            factors: &self.factors,
            offsets: &self.offsets,
        }
    }

    /// Returns codes from their parts, or `None` if the parts do not fit together.
    pub(in super::super) fn from_raw(dim: usize, len: usize, raw: &RawCodes<'_>) -> Option<Self> {
        let (pairs, blocks) = Self::sizes(dim, len);
        let fits = raw.signs.len() == blocks * pairs
            && raw.factors.len() == blocks
            && raw.offsets.len() == blocks;
        fits.then(|| Self {
            pairs,
            len,
            signs: raw.signs.to_vec(),
            factors: raw.factors.to_vec(),
            offsets: raw.offsets.to_vec(),
        })
    }

    /// Replaces `estimates` by the estimated products of the rows of whole blocks that hold
    /// `rows`, and returns the index of the first of `rows` in it.
    pub(in super::super) fn estimate(
        &self,
        query: &BitQuery,
        rows: std::ops::Range<usize>,
        estimates: &mut Vec<f32>,
    ) -> usize {
        let blocks = rows.start / ROWS..rows.end.div_ceil(ROWS);
        estimates.clear();
        for block in blocks {
            let signs = &self.signs[block * self.pairs..][..self.pairs];
            let mut sums = [0; ROWS];
            for (signs, tables) in signs.chunks(SUMMED).zip(query.tables.chunks(SUMMED)) {
                if !native::table_sums(signs, tables, &mut sums) {
                    add_entries(signs, tables, &mut sums);
                }
            }
            let (factors, offsets) = (&self.factors[block], &self.offsets[block]);
            let estimate = |row: usize| {
                let product = query.step * sums[row] as i32 as f32 + query.shift;
                query.base + offsets[row] + factors[row] * product
            };
            estimates.extend_from_slice(&std::array::from_fn::<_, ROWS, _>(estimate));
        }
        rows.start % ROWS
    }
}

/// Adds, for each row, the entries of the tables at its signs.
fn add_entries(signs: &[Signs], tables: &[[u8; 32]], sums: &mut [u32; ROWS]) {
    for (signs, tables) in signs.iter().zip(tables) {
        for (signs, table) in signs.chunks(16).zip(tables.chunks(16)) {
            for (row, signs) in signs.iter().enumerate() {
                sums[row] += u32::from(table[usize::from(signs & 15)]);
                sums[row + 16] += u32::from(table[usize::from(signs >> 4)]);
            }
        }
    }
}

/// Returns the signs of a row of a block.
fn eight(signs: &Signs, row: usize) -> u8 {
    let shift = if row < 16 { 0 } else { 4 };
    let half = |from: usize| (signs[from + row % 16] >> shift) & 15;
    half(0) | (half(16) << 4)
}

/// Sets the signs of a row of a block, which are 0.
fn set_eight(to: &mut Signs, row: usize, signs: u8) {
    let shift = if row < 16 { 0 } else { 4 };
    to[row % 16] |= (signs & 15) << shift;
    to[16 + row % 16] |= (signs >> 4) << shift;
}

struct Encode<'a> {
    vector: &'a [f32],
    center: &'a [f32],
    row: usize,
    signs: &'a mut [Signs],
}

struct Encoded {
    factor: f32,
    offset: f32,
}

impl WithSimd for Encode<'_> {
    type Output = Encoded;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Encoded {
        let (mut sums, mut squares, mut offsets) =
            ([0.0f32; VALUES], [0.0f32; VALUES], [0.0f32; VALUES]);
        let parts = self.vector.chunks(VALUES).zip(self.center.chunks(VALUES));
        for ((vector, center), to) in parts.zip(self.signs) {
            let mut signs = 0;
            for (lane, (value, center)) in vector.iter().zip(center).enumerate() {
                let difference = value - center;
                sums[lane] += difference.abs();
                squares[lane] += difference * difference;
                offsets[lane] += difference * center;
                signs |= u8::from(difference > 0.0) << lane;
            }
            set_eight(to, self.row, signs);
        }
        let [sum, square, offset] = [sums, squares, offsets].map(|lanes| lanes.iter().sum::<f32>());
        // The estimate is without error if the query is the vector itself.
        let factor = if sum > 0.0 { square / sum } else { 0.0 };
        Encoded { factor, offset }
    }
}

/// A query for codes of one center.
#[derive(Debug)]
pub(in super::super) struct BitQuery {
    /// Sums of the values whose signs are set, for all signs of four values, without the negative
    /// ones: two tables for eight values.
    tables: Vec<[u8; 32]>,
    /// Product of the query with the center.
    base: f32,
    /// Twice the value of 1 in a table.
    step: f32,
    /// What is left out of the sums.
    shift: f32,
}

impl BitQuery {
    /// Prepares a query; `query` and `center` are rotated: `[dim]`.
    pub(in super::super) fn new(query: &[f32], center: &[f32]) -> Self {
        Arch::new().dispatch(Prepare { query, center })
    }
}

struct Prepare<'a> {
    query: &'a [f32],
    center: &'a [f32],
}

impl WithSimd for Prepare<'_> {
    type Output = BitQuery;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> BitQuery {
        // Values that are missing in the last eight are 0.
        let len = self.query.len().next_multiple_of(VALUES);
        let (mut differences, mut products) = (vec![0.0f32; len], vec![0.0f32; len]);
        let values = self.query.iter().zip(self.center);
        let to = differences.iter_mut().zip(&mut products);
        for ((difference, product), (query, center)) in to.zip(values) {
            (*difference, *product) = (query - center, query * center);
        }
        let (eights, _) = differences.as_chunks::<VALUES>();
        let mut largest = [0.0f32; 2];
        for [a, b, c, d, e, f, g, h] in eights.iter().map(|eight| eight.map(f32::abs)) {
            for (largest, sum) in largest
                .iter_mut()
                .zip([(a + b) + (c + d), (e + f) + (g + h)])
            {
                *largest = if sum > *largest { sum } else { *largest };
            }
        }
        let largest = largest[0].max(largest[1]);
        let scale = if largest > 0.0 {
            LARGEST / largest
        } else {
            0.0
        };
        let mut values = vec![0i8; differences.len()];
        for (value, difference) in values.iter_mut().zip(&differences) {
            let rounded = difference * scale + ROUNDING;
            *value = (rounded.to_bits() as i32 - ROUNDING.to_bits() as i32) as i8;
        }
        let mut below = 0;
        let mut tables = vec![[0; 32]; eights.len()];
        for (pair, fours) in tables.iter_mut().zip(values.as_chunks::<VALUES>().0) {
            let (halves, _) = pair.as_chunks_mut::<16>();
            for (half, four) in halves.iter_mut().zip(fours.as_chunks::<4>().0) {
                below += write_table(*four, half);
            }
        }
        let step = 2.0 * largest / LARGEST;
        BitQuery {
            tables,
            base: sum(&products),
            step,
            shift: -step * below as f32 - sum(&differences),
        }
    }
}

/// Adds a multiple of [`VALUES`] values.
#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0; VALUES];
    for eight in values.as_chunks::<VALUES>().0 {
        sums.iter_mut()
            .zip(eight)
            .for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum()
}

/// Writes, for each index, the sum of the values at its set bits plus the size of all negative
/// values, and returns that size.
#[inline(always)]
fn write_table(values: [i8; 4], table: &mut [u8; 16]) -> u32 {
    let below = values.map(|value| value.min(0).unsigned_abs());
    let below = (below[0] + below[1]) + (below[2] + below[3]);
    let [a, b, c, d] = values.map(i8::cast_unsigned);
    for (index, sum) in table.iter_mut().enumerate() {
        let low = (a & SET[0][index]).wrapping_add(b & SET[1][index]);
        let high = (c & SET[2][index]).wrapping_add(d & SET[3][index]);
        *sum = below.wrapping_add(low.wrapping_add(high));
    }
    u32::from(below)
}

/// For each bit, a byte of ones for the indexes in which it is set.
const SET: [[u8; 16]; 4] = {
    let mut set = [[0; 16]; 4];
    let mut place = 0;
    while place < 64 {
        let (bit, index) = (place / 16, place % 16);
        if (index >> bit) & 1 == 1 {
            set[bit][index] = 0xff;
        }
        place += 1;
    }
    set
};

#[cfg(test)]
mod tests {
    use super::{super::rotation::Rotation, *};

    /// The formula of the paper, with the query rounded as for the tables.
    fn expected(vector: &[f32], center: &[f32], query: &[f32]) -> f32 {
        let differences: Vec<f32> = query.iter().zip(center).map(|(q, c)| q - c).collect();
        let fours = differences
            .chunks(4)
            .map(|four| four.iter().map(|d| d.abs()).sum::<f32>());
        let scale = LARGEST / fours.fold(0.0, f32::max);
        let mut of_signs = 0.0f64;
        let (mut sum, mut square, mut offset, mut base) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for (((v, c), q), difference) in vector.iter().zip(center).zip(query).zip(differences) {
            let rounded = (difference * scale).round_ties_even() / scale;
            let of_set = if v - c > 0.0 { 2.0 * rounded } else { 0.0 };
            of_signs += f64::from(of_set - difference);
            sum += f64::from((v - c).abs());
            square += f64::from(v - c).powi(2);
            offset += f64::from((v - c) * c);
            base += f64::from(c * q);
        }
        (base + offset + square / sum * of_signs) as f32
    }

    #[test]
    fn estimates_are_those_of_the_formula_for_all_widths_and_ranges() {
        let mut random = fastrand::Rng::with_seed(3);
        for dim in [1, 7, 63, 64, 65, 384, 1000, 1536] {
            let mut draw = || -> Vec<f32> { (0..dim).map(|_| random.f32() - 0.5).collect() };
            let (center, query) = (draw(), draw());
            let vectors: Vec<_> = (0..77).map(|_| draw()).collect();
            let mut codes = BitCodes::with_capacity(dim, 0);
            vectors
                .iter()
                .for_each(|vector| codes.push(vector, &center));
            let prepared = BitQuery::new(&query, &center);
            let mut estimates = Vec::new();
            for rows in [0..77, 3..4, 32..64, 31..77, 76..77] {
                let first = codes.estimate(&prepared, rows.clone(), &mut estimates);
                for (row, found) in rows.clone().zip(&estimates[first..]) {
                    let expected = expected(&vectors[row], &center, &query);
                    // A value in the middle of two may be rounded to either.
                    let tolerance = 1e-3 * (dim as f32).sqrt();
                    let error = (found - expected).abs();
                    assert!(error < tolerance, "{dim} {row}: {found} {expected}");
                }
            }
            // Copies, and codes from stored parts, have the same estimates.
            let mut copy = BitCodes::with_capacity(dim, 2);
            copy.push_from(&codes, 76);
            copy.push_from(&codes, 5);
            let copy = BitCodes::from_raw(dim, 2, &copy.raw()).expect("parts that fit");
            let mut copied = Vec::new();
            copy.estimate(&prepared, 0..2, &mut copied);
            codes.estimate(&prepared, 0..77, &mut estimates);
            assert_eq!(copied[..2], [estimates[76], estimates[5]]);
            assert!(BitCodes::from_raw(dim + 64, 2, &copy.raw()).is_none());
            assert!(BitCodes::from_raw(dim, 33, &copy.raw()).is_none());
        }
    }

    #[test]
    fn estimates_are_near_the_products_of_rotated_vectors() {
        let dim = 384;
        let rotation = Rotation::new(dim);
        let mut random = fastrand::Rng::with_seed(9);
        let mut draw = || {
            let mut vector: Vec<f32> = (0..dim).map(|_| random.f32() - 0.5).collect();
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|value| *value /= length);
            rotation.apply(&mut vector);
            vector
        };
        let center = vec![0.0; dim];
        let mut squares = 0.0;
        for _ in 0..200 {
            let (vector, query) = (draw(), draw());
            let mut codes = BitCodes::with_capacity(dim, 1);
            codes.push(&vector, &center);
            let mut estimates = Vec::new();
            codes.estimate(&BitQuery::new(&query, &center), 0..1, &mut estimates);
            let product: f32 = vector.iter().zip(&query).map(|(a, b)| a * b).sum();
            squares += (estimates[0] - product).powi(2);
        }
        // By the paper, the error is √((π/2 − 1) / (dim − 1)) = 0.0386; rounding adds little.
        let error = (squares / 200.0).sqrt();
        assert!(error < 0.045, "{error}");
    }

    /// Instructions of the processor give the same sums.
    #[test]
    fn native_sums_are_those_of_the_loop() {
        let mut random = fastrand::Rng::with_seed(4);
        for pairs in [1, 2, 3, 4, 5, 48, SUMMED] {
            let mut draw = |below: u8| -> Vec<[u8; 32]> {
                (0..pairs)
                    .map(|_| std::array::from_fn(|_| random.u8(..=below)))
                    .collect()
            };
            let (signs, tables) = (draw(255), draw(63));
            let mut expected = [7; ROWS];
            add_entries(&signs, &tables, &mut expected);
            let mut sums = [7; ROWS];
            if native::table_sums(&signs, &tables, &mut sums) {
                assert_eq!(sums, expected, "{pairs}");
            }
        }
        // The largest sums.
        let mut sums = [0; ROWS];
        if native::table_sums(&[[255; 32]; SUMMED], &[[63; 32]; SUMMED], &mut sums) {
            assert_eq!(sums, [2 * 63 * SUMMED as u32; ROWS]);
        }
    }

    /// A vector at the center, or a query there, must not divide by zero.
    #[test]
    fn a_difference_of_zero_has_the_product_with_the_center() {
        let center = [0.6, 0.8];
        let mut codes = BitCodes::with_capacity(2, 1);
        codes.push(&center, &center);
        let mut estimates = Vec::new();
        codes.estimate(&BitQuery::new(&[0.0, 1.0], &center), 0..1, &mut estimates);
        assert_eq!(estimates[0], 0.8);
        codes.estimate(&BitQuery::new(&center, &center), 0..1, &mut estimates);
        assert!((estimates[0] - 1.0).abs() < 1e-6);
    }
}
