//! Exact search: dot products with all rows, and a heap of the best.

use std::{cmp::Ordering, collections::BinaryHeap};

use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};

use super::{
    attributes::RowSet,
    readers::Caller,
    rows::{Rows, Vectors},
};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hit {
    pub(super) score: f32,
    pub(super) serial: u64,
    pub(super) place: u64,
}

impl Eq for Hit {}

/// Better hits sort first, by higher score and then by lower place. The worst hit is on top of a
/// heap.
impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score);
        by_score.then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug)]
pub(super) struct Best {
    k: usize,
    heap: BinaryHeap<Hit>,
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        Self {
            k,
            heap: BinaryHeap::with_capacity(k.min(4096) + 1),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn offer(&mut self, hit: Hit) {
        if self.heap.len() < self.k {
            self.heap.push(hit);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
    }

    /// Returns the score that a new hit must reach.
    fn threshold(&self) -> f32 {
        if self.heap.len() < self.k {
            f32::NEG_INFINITY
        } else {
            self.heap.peek().map_or(f32::INFINITY, |hit| hit.score)
        }
    }

    /// Returns the hits, best first.
    pub(super) fn into_sorted(self) -> Vec<Hit> {
        self.heap.into_sorted_vec()
    }
}

/// Offers every row of `passing`, one set per chunk, whose serial is above `after`.
pub(super) fn scan(
    rows: &Rows,
    passing: &[RowSet],
    query: &[f32],
    after: u64,
    best: &mut Best,
    caller: Caller<'_>,
) -> Result<()> {
    let mut scanner = Scanner::new(query);
    let chunks = rows.chunks.iter().zip(passing);
    for (live, passing) in chunks.skip(rows.first_chunk_after(after)) {
        caller.check()?;
        let chunk = &live.chunk;
        let first = chunk.serials.partition_point(|&serial| serial <= after);
        let mut offer = |row: usize, score: f32| {
            if score >= best.threshold() {
                best.offer(Hit {
                    score: score.clamp(-1.0, 1.0),
                    serial: chunk.serials[row],
                    place: chunk.places[row],
                });
            }
        };
        let passing_rows = passing.iter().skip_while(|&row| row < first);
        // If most rows pass, all are computed, because sequential memory access is faster.
        if passing.len() * 2 > chunk.len() {
            let scores = scanner.all(&chunk.vectors, first..chunk.len());
            passing_rows.for_each(|row| offer(row, scores[row - first]));
        } else {
            passing_rows.for_each(|row| offer(row, scanner.one(&chunk.vectors, row)));
        }
    }
    Ok(())
}

pub(super) fn score(query: &[f32], vectors: &Vectors, row: usize) -> f32 {
    Scanner::new(query).one(vectors, row).clamp(-1.0, 1.0)
}

struct Scanner<'a> {
    arch: Arch,
    query: &'a [f32],
    scores: Vec<f32>,
    single: Vec<f32>,
}

impl<'a> Scanner<'a> {
    fn new(query: &'a [f32]) -> Self {
        Self {
            arch: Arch::new(),
            query,
            scores: Vec::new(),
            single: Vec::new(),
        }
    }

    fn dots(&mut self, rows: &[f32], at: usize) {
        let count = rows.len() / self.query.len();
        self.arch.dispatch(Dots {
            query: self.query,
            rows,
            scores: &mut self.scores[at..at + count],
        });
    }

    fn all(&mut self, vectors: &Vectors, range: std::ops::Range<usize>) -> &[f32] {
        let dim = self.query.len();
        self.scores.clear();
        self.scores.resize(range.len(), 0.0);
        match vectors {
            Vectors::F32(values) => self.dots(&values[range.start * dim..range.end * dim], 0),
            Vectors::F16(values) => {
                // Four rows at a time, as in `Dots`, through a buffer that fits the L1 cache.
                let values = &values[range.start * dim..range.end * dim];
                let quarter = range.len() / 4;
                let mut single = std::mem::take(&mut self.single);
                let mut scores = [0.0; 4];
                for row in 0..quarter {
                    single.resize(4 * dim, 0.0);
                    for (n, single) in single.chunks_exact_mut(dim).enumerate() {
                        values[(n * quarter + row) * dim..][..dim].convert_to_f32_slice(single);
                    }
                    self.arch.dispatch(Dots {
                        query: self.query,
                        rows: &single,
                        scores: &mut scores,
                    });
                    for (n, score) in scores.into_iter().enumerate() {
                        self.scores[n * quarter + row] = score;
                    }
                }
                let remainder = &values[4 * quarter * dim..];
                single.resize(remainder.len(), 0.0);
                remainder.convert_to_f32_slice(&mut single);
                self.dots(&single, 4 * quarter);
                self.single = single;
            }
        }
        &self.scores
    }

    /// Computes the score of a row, bit for bit the same as in [`Scanner::all`].
    fn one(&mut self, vectors: &Vectors, row: usize) -> f32 {
        self.all(vectors, row..row + 1)[0]
    }
}

/// Dot products of a query with rows. A row is summed in the same order, alone or with others, so
/// equal vectors have equal scores.
struct Dots<'a> {
    query: &'a [f32],
    rows: &'a [f32],
    scores: &'a mut [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            query,
            rows,
            scores,
        } = self;
        let dim = query.len();
        let (query_lanes, query_tail) = S::as_simd_f32s(query);
        // Four rows at a time, from four distant addresses: the processor prefetches each stream,
        // and when one waits for the next memory page, the others continue.
        let quarter = scores.len() / 4;
        let (quarters, remainder) = rows.split_at(4 * quarter * dim);
        let [a, b, c, d] = std::array::from_fn(|n| {
            quarters[n * quarter * dim..][..quarter * dim].chunks_exact(dim)
        });
        for (row, (((a, b), c), d)) in a.zip(b).zip(c).zip(d).enumerate() {
            let four = dots(simd, query_lanes, query_tail, [a, b, c, d]);
            for (n, score) in four.into_iter().enumerate() {
                scores[n * quarter + row] = score;
            }
        }
        for (row, score) in remainder.chunks_exact(dim).zip(&mut scores[4 * quarter..]) {
            [*score] = dots(simd, query_lanes, query_tail, [row]);
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
