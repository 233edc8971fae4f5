//! The index: its rows, searches, and how it follows the gallery.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ndarray::Array2;
use parking_lot::RwLock;

use super::{
    super::rows::{Chunk, Rows},
    lists::{Candidate, Centers, Encoded, List},
    parallel::in_parallel,
};
use crate::{error::Result, gallery::VectorFormat};

/// Reads rows of a chunk that can be read: their serials and their vectors, `[rows, dim]`.
pub(in super::super) type ReadRows<'a> =
    &'a (dyn Fn(&Chunk, &[usize]) -> Result<(Vec<u64>, Array2<f32>)> + Sync);

/// Asks whether the work on an index shall end early.
pub(in super::super) type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Numbers of neighbors for which the number of lists is measured.
pub(super) const NEIGHBORS: [usize; 2] = [10, 100];
/// An index whose gallery has grown by this factor is made again.
const GROWTH: usize = 4;

#[derive(Debug)]
pub(in super::super) struct ApproximateIndex {
    pub(super) centers: Centers,
    pub(super) lists: RwLock<Vec<List>>,
    /// Number of entries in all lists.
    pub(super) entries: AtomicUsize,
    /// Number of lists that a search reads, by [`NEIGHBORS`].
    pub(super) probes: [AtomicUsize; NEIGHBORS.len()],
    /// Serial up to which every live row is in the index.
    pub(super) upto: AtomicU64,
    /// Number of rows for which the lists were made.
    pub(super) made_for: usize,
}

/// Returns the number of candidates for `k` neighbors of a vector of `dim` values, whose products
/// are then computed.
pub(super) fn candidates(k: usize, dim: usize) -> usize {
    (6 * k + 24).saturating_mul(VectorFormat::more_of_narrow(dim))
}

impl ApproximateIndex {
    /// Returns an index without rows.
    pub(super) fn new(centers: Centers, made_for: usize) -> Self {
        let count = centers.directions.nrows();
        let lists = (0..count).map(|_| List::new(centers.directions.ncols()));
        Self {
            lists: RwLock::new(lists.collect()),
            centers,
            entries: AtomicUsize::new(0),
            probes: NEIGHBORS.map(|_| AtomicUsize::new(count)),
            upto: AtomicU64::new(0),
            made_for,
        }
    }

    pub(in super::super) fn upto(&self) -> u64 {
        self.upto.load(Ordering::Acquire)
    }

    /// Returns the number of entries, including those of dead rows.
    pub(in super::super) fn len(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// Returns whether an index of `live` rows should be made again: it has too many entries of
    /// dead rows, or too few lists.
    pub(in super::super) fn is_outgrown(&self, live: usize) -> bool {
        self.len() > 2 * live + live / 2 || live / GROWTH > self.made_for
    }

    /// Returns the serials of about the `k` accepted rows nearest to a query, and others, with the
    /// estimates of their products, in no particular order. `accepted` is the number of rows that
    /// are accepted.
    pub(in super::super) fn search(
        &self,
        query: &[f32],
        k: usize,
        accepted: usize,
        accept: Option<&dyn Fn(u64) -> bool>,
    ) -> Vec<(u64, f32)> {
        // The nearest of a part of the rows are among so many of all rows.
        let nearest = k.saturating_mul(self.len()) / accepted.max(1);
        let (lists, probes) = (self.lists.read(), self.probes_for(nearest.max(k)));
        let found = self
            .centers
            .best(&lists, query, probes, candidates(k, query.len()), accept);
        let pair = |candidate: Candidate| (candidate.serial, candidate.estimate);
        found.into_iter().map(pair).collect()
    }

    fn probes_for(&self, k: usize) -> usize {
        let [few, many] = &self.probes;
        let many = many.load(Ordering::Relaxed);
        match k {
            0..=10 => few.load(Ordering::Relaxed),
            11..=100 => many,
            _ => (k / 100 + 1).saturating_mul(many),
        }
    }

    /// Adds the rows that the index lacks, with several threads, until `stop` returns true.
    pub(in super::super) fn catch_up(
        &self,
        rows: &Rows,
        threads: usize,
        read: ReadRows<'_>,
        stop: Stop<'_>,
    ) -> Result<()> {
        for chunks in rows.chunks[rows.first_chunk_after(self.upto())..].chunks(threads) {
            if stop() {
                return Ok(());
            }
            let upto = self.upto();
            let encoded = in_parallel(chunks, |live| {
                let chunk = &live.chunk;
                let first = chunk.serials.partition_point(|&serial| serial <= upto);
                let missing: Vec<usize> = live.live.iter().filter(|&row| row >= first).collect();
                let (serials, vectors) = read(chunk, &missing)?;
                Ok(self.centers.encode(serials, &vectors))
            })?;
            let mut lists = self.lists.write();
            for Encoded {
                lists: places,
                serials,
                codes,
            } in encoded
            {
                self.entries.fetch_add(serials.len(), Ordering::AcqRel);
                for (row, (place, serial)) in places.into_iter().zip(serials).enumerate() {
                    lists[place].serials.push(serial);
                    lists[place].codes.push_from(&codes, row);
                }
            }
            drop(lists);
            // Rows after the last live row are dead.
            if let Some(last) = chunks.last() {
                self.upto.fetch_max(last.last_serial(), Ordering::AcqRel);
            }
        }
        Ok(())
    }
}
