//! The lists of an index: each row is in the list whose center is nearest to it.

use std::{cmp::Reverse, collections::BinaryHeap};

use ndarray::Array2;

use super::super::vectors::{BitCodes, BitQuery, ByteCodes, ByteQuery, Rotation};
use crate::features::kmeans::assign;

/// Centers of all lists.
#[derive(Debug)]
pub(super) struct Centers {
    /// Directions of the centers: `[lists, dim]`, of length 1.
    pub(super) directions: Array2<f32>,
    /// The same in 8 bits, with which searches rank the lists.
    codes: ByteCodes,
    /// Means of the rows of the lists, rotated: `[lists, dim]`.
    pub(super) means: Array2<f32>,
    rotation: Rotation,
}

/// Rows of one list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) serials: Vec<u64>,
    pub(super) codes: BitCodes,
}

impl List {
    pub(super) fn new(dim: usize) -> Self {
        Self {
            serials: Vec::new(),
            codes: BitCodes::with_capacity(dim, 0),
        }
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink(&mut self) {
        self.serials.shrink_to_fit();
        self.codes.shrink();
    }
}

/// Rows, each encoded for its list.
pub(super) struct Encoded {
    pub(super) lists: Vec<usize>,
    pub(super) serials: Vec<u64>,
    pub(super) codes: BitCodes,
}

/// An estimate of the product of a row with the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) estimate: f32,
    pub(super) serial: u64,
    /// How many lists are nearer to the query than that of the row.
    pub(super) rank: u32,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_estimate = self.estimate.total_cmp(&other.estimate);
        by_estimate.then(other.serial.cmp(&self.serial))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Centers {
    /// Returns the centers in these directions, of the lengths of the means of their rows.
    pub(super) fn new(directions: Array2<f32>, lengths: &[f32]) -> Self {
        let rotation = Rotation::new(directions.ncols());
        let mut means = directions.as_standard_layout().into_owned();
        for (mut mean, length) in means.rows_mut().into_iter().zip(lengths) {
            mean *= *length;
            rotation.apply(mean.as_slice_mut().expect("a row in standard layout"));
        }
        Self::from_parts(directions, means)
    }

    /// Returns centers with rotated means.
    pub(super) fn from_parts(directions: Array2<f32>, means: Array2<f32>) -> Self {
        let mut codes = ByteCodes::with_capacity(directions.ncols(), directions.nrows());
        for direction in directions.rows() {
            codes.push(&direction.to_vec());
        }
        Self {
            rotation: Rotation::new(directions.ncols()),
            codes,
            directions,
            means,
        }
    }

    /// Encodes rows, `[rows, dim]`, for the lists that are nearest to them.
    pub(super) fn encode(&self, serials: Vec<u64>, vectors: &Array2<f32>) -> Encoded {
        let (places, _) = assign(vectors.view(), &self.directions);
        let mut codes = BitCodes::with_capacity(vectors.ncols(), vectors.nrows());
        let mut rotated = vec![0.0; vectors.ncols()];
        for (vector, place) in vectors.rows().into_iter().zip(&places) {
            rotated
                .iter_mut()
                .zip(vector)
                .for_each(|(to, from)| *to = *from);
            self.rotation.apply(&mut rotated);
            codes.push(&rotated, self.mean(place.center));
        }
        Encoded {
            lists: places.into_iter().map(|place| place.center).collect(),
            serials,
            codes,
        }
    }

    fn mean(&self, list: usize) -> &[f32] {
        let row = self.means.row(list);
        row.to_slice().expect("a row in standard layout")
    }

    /// Returns the `count` accepted rows with the highest estimates in the `probes` lists nearest
    /// to the query. If that many are found late, twice as many lists are read as it took.
    pub(super) fn best(
        &self,
        lists: &[List],
        query: &[f32],
        probes: usize,
        count: usize,
        accept: Option<&dyn Fn(u64) -> bool>,
    ) -> Vec<Candidate> {
        let mut rotated = query.to_vec();
        self.rotation.apply(&mut rotated);
        let mut best = Best {
            heap: BinaryHeap::with_capacity(count.min(4096) + 1),
            count,
        };
        let mut estimates = Vec::new();
        let mut enough = probes;
        for (rank, list) in self.nearest(query, probes).enumerate() {
            if rank >= enough {
                break;
            }
            let was_full = best.is_full();
            let List { serials, codes } = &lists[list];
            let prepared = BitQuery::new(&rotated, self.mean(list));
            codes.estimate(&prepared, 0..serials.len(), &mut estimates);
            best.offer_all(&estimates, serials, rank as u32, accept);
            if !was_full {
                enough = enough.max(2 * (rank + 1));
            }
        }
        best.heap
            .into_iter()
            .map(|Reverse(candidate)| candidate)
            .collect()
    }

    /// Returns all lists, the nearest to the query first; `first` are needed in any case.
    fn nearest(&self, query: &[f32], first: usize) -> impl Iterator<Item = usize> {
        let mut cosines = vec![0.0; self.directions.nrows()];
        self.codes.estimate(&ByteQuery::new(query), 0, &mut cosines);
        let mut order: Vec<(f32, usize)> = cosines.into_iter().zip(0..).collect();
        let falling = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0);
        let first = first.min(order.len());
        if first < order.len() {
            order.select_nth_unstable_by(first, falling);
        }
        let mut others = order.split_off(first);
        order.sort_unstable_by(falling);
        let others = std::iter::once_with(move || {
            others.sort_unstable_by(falling);
            others
        });
        order
            .into_iter()
            .chain(others.flatten())
            .map(|(_, list)| list)
    }
}

/// The candidates with the highest estimates, up to a number of them.
struct Best {
    heap: BinaryHeap<Reverse<Candidate>>,
    count: usize,
}

impl Best {
    fn is_full(&self) -> bool {
        self.heap.len() >= self.count
    }

    /// Returns the estimate that a further candidate must exceed.
    fn least(&self) -> f32 {
        match self.heap.peek() {
            Some(Reverse(least)) if self.is_full() => least.estimate,
            _ => f32::NEG_INFINITY,
        }
    }

    /// Offers the rows of a list, which may have fewer than there are estimates.
    fn offer_all(
        &mut self,
        estimates: &[f32],
        serials: &[u64],
        rank: u32,
        accept: Option<&dyn Fn(u64) -> bool>,
    ) {
        let mut least = self.least();
        for (estimates, serials) in estimates.chunks(8).zip(serials.chunks(8)) {
            // Few rows are candidates, and eight are compared at once.
            if !estimates
                .iter()
                .fold(false, |any, estimate| any | (*estimate > least))
            {
                continue;
            }
            for (&estimate, &serial) in estimates.iter().zip(serials) {
                if estimate > least && accept.is_none_or(|accept| accept(serial)) {
                    self.heap.push(Reverse(Candidate {
                        estimate,
                        serial,
                        rank,
                    }));
                    if self.heap.len() > self.count {
                        self.heap.pop();
                    }
                    least = self.least();
                }
            }
        }
    }
}
