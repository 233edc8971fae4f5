//! The scan of all rows: their products with the query, and a heap of the best.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::{attributes::RowSet, readers::Caller, rows::Rows, vectors::Scorer};
use crate::error::Result;

/// Number of rows whose scores are compared at once.
const STEP: usize = 16;

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
    scorer: &mut Scorer<'_>,
    after: u64,
    best: &mut Best,
    caller: Caller<'_>,
) -> Result<()> {
    let chunks = rows.chunks.iter().zip(passing);
    for (live, passing) in chunks.skip(rows.first_chunk_after(after)) {
        caller.check()?;
        let chunk = &live.chunk;
        let first = chunk.serials.partition_point(|&serial| serial <= after);
        // Estimates beyond 1 still tell which row is nearer.
        let is_exact = chunk.vectors.singles().is_some();
        let offer = |best: &mut Best, row: usize, score: f32| {
            if score >= best.threshold() {
                best.offer(Hit {
                    score: if is_exact {
                        score.clamp(-1.0, 1.0)
                    } else {
                        score
                    },
                    serial: chunk.serials[row],
                    place: chunk.places[row],
                });
            }
        };
        // If most rows pass, all are computed, because sequential memory access is faster.
        if passing.len() * 2 > chunk.len() {
            let scores = scorer.all(&chunk.vectors, first..chunk.len());
            for (scores, row) in scores.chunks(STEP).zip((first..).step_by(STEP)) {
                // Few rows are among the best, and several are compared at once.
                let least = best.threshold();
                if !scores
                    .iter()
                    .fold(false, |any, score| any | (*score >= least))
                {
                    continue;
                }
                for (&score, row) in scores.iter().zip(row..) {
                    if passing.contains(row) {
                        offer(best, row, score);
                    }
                }
            }
        } else {
            for row in passing.iter().skip_while(|&row| row < first) {
                offer(best, row, scorer.one(&chunk.vectors, row));
            }
        }
    }
    Ok(())
}
