//! Makes the lists of an index, and measures how many of them a search needs.

use std::sync::atomic::Ordering;

use ndarray::{Array2, Axis};

use super::{
    super::{
        rows::{LiveChunk, Rows},
        vectors::products,
    },
    approximate::{ApproximateIndex, NEIGHBORS, ReadRows, Stop, candidates},
    lists::{Candidate, Centers, List},
    parallel::in_parallel,
};
use crate::{
    error::{Error, Result},
    features::kmeans::{assign, move_centers},
};

/// Maximum number of lists.
const MAX_LISTS: usize = 4096;
/// Maximum number of rows from which the centers are made.
const SAMPLE: usize = 1 << 16;
/// Number of moves of the centers.
const MOVES: usize = 8;
/// Number of rows that are searched to measure how many lists are needed.
const QUERIES: usize = 200;
/// Share of the neighbors that must be in the lists.
const SHARE: f64 = 0.99;

/// Returns the number of lists for a number of rows.
fn list_count(rows: usize) -> usize {
    let lists = 2.0 * (rows as f64).sqrt();
    (lists as usize)
        .next_power_of_two()
        .min(MAX_LISTS)
        .min(rows.max(1))
}

impl ApproximateIndex {
    /// Makes an index of rows with several threads. Returns `None` if `stop` ends it.
    pub(in super::super) fn build(
        rows: &Rows,
        threads: usize,
        read: ReadRows<'_>,
        stop: Stop<'_>,
    ) -> Result<Option<Self>> {
        let sample = sample(rows, read)?;
        if sample.is_empty() {
            return Err(Error::damaged("no vector of a gallery can be read"));
        }
        let Some(centers) = centers(&sample, list_count(rows.live), threads, stop)? else {
            return Ok(None);
        };
        drop(sample);
        let index = Self::new(centers, rows.live);
        index.catch_up(rows, threads, read, stop)?;
        index.lists.write().iter_mut().for_each(List::shrink);
        let measured = index.measure(rows, threads, read, stop)?;
        Ok(measured.then_some(index))
    }

    /// Measures how many lists are needed, on vectors of the gallery. Returns false if `stop` ends
    /// it.
    fn measure(
        &self,
        rows: &Rows,
        threads: usize,
        read: ReadRows<'_>,
        stop: Stop<'_>,
    ) -> Result<bool> {
        let step = rows.live.div_ceil(QUERIES).max(1);
        let queries: Vec<_> = every(rows, step).collect();
        let mut ranks: [Vec<u32>; NEIGHBORS.len()] = Default::default();
        for queries in queries.chunks(threads) {
            if stop() {
                return Ok(false);
            }
            for found in in_parallel(queries, |&(live, row)| self.ranks(rows, live, row, read))? {
                for (ranks, count) in ranks.iter_mut().zip(NEIGHBORS) {
                    ranks.extend(found.iter().take(count));
                }
            }
        }
        for (probes, mut ranks) in self.probes.iter().zip(ranks) {
            ranks.sort_unstable();
            let needed = (ranks.len() as f64 * SHARE).ceil() as usize;
            if let Some(rank) = ranks.get(needed.saturating_sub(1)) {
                probes.store(*rank as usize + 1, Ordering::Relaxed);
            }
        }
        Ok(true)
    }

    /// Returns the ranks of the lists of the nearest neighbors of a row, the nearest first.
    fn ranks(
        &self,
        rows: &Rows,
        live: &LiveChunk,
        row: usize,
        read: ReadRows<'_>,
    ) -> Result<Vec<u32>> {
        let (own, query) = read(&live.chunk, &[row])?;
        let Some(query) = query.rows().into_iter().next().map(|row| row.to_vec()) else {
            return Ok(Vec::new());
        };
        let [.., most] = NEIGHBORS;
        let lists = self.lists.read();
        let count = candidates(most, rows.dim);
        let found = self.centers.best(&lists, &query, lists.len(), count, None);
        drop(lists);
        let mut scored = Vec::with_capacity(found.len());
        for Candidate { serial, rank, .. } in found {
            let Some((chunk, row)) = rows.locate(serial).filter(|_| !own.contains(&serial)) else {
                continue;
            };
            let (_, vector) = read(&rows.chunks[chunk].chunk, &[row])?;
            let mut score = [0.0];
            if let Some(vector) = vector
                .as_slice()
                .filter(|vector| vector.len() == query.len())
            {
                products(&query, vector, &mut score);
                scored.push((score[0], rank));
            }
        }
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        Ok(scored
            .into_iter()
            .take(most)
            .map(|(_, rank)| rank)
            .collect())
    }
}

/// Iterates over each `step`th live row.
fn every(rows: &Rows, step: usize) -> impl Iterator<Item = (&LiveChunk, usize)> {
    let all = rows.chunks.iter();
    all.flat_map(|live| live.live.iter().map(move |row| (live, row)))
        .step_by(step)
}

/// Reads vectors from all parts of a gallery: `[rows, dim]`.
fn sample(rows: &Rows, read: ReadRows<'_>) -> Result<Array2<f32>> {
    let step = rows.live.div_ceil(SAMPLE).max(1);
    let mut sampled = Vec::with_capacity(rows.live.div_ceil(step) * rows.dim);
    let mut first = 0;
    for live in &rows.chunks {
        let chosen: Vec<usize> = live.live.iter().skip(first).step_by(step).collect();
        first = (first + chosen.len() * step).saturating_sub(live.live.len());
        let (_, vectors) = read(&live.chunk, &chosen)?;
        sampled.extend(vectors);
    }
    let count = sampled.len() / rows.dim;
    Array2::from_shape_vec((count, rows.dim), sampled)
        .map_err(|error| Error::internal(format!("sampling a gallery: {error}")))
}

/// Finds the centers of `count` lists. Returns `None` if `stop` ends it.
fn centers(
    sample: &Array2<f32>,
    count: usize,
    threads: usize,
    stop: Stop<'_>,
) -> Result<Option<Centers>> {
    let count = count.min(sample.nrows());
    let chosen: Vec<usize> = (0..count)
        .map(|list| list * sample.nrows() / count)
        .collect();
    let mut directions = sample.select(Axis(0), &chosen);
    let mut lengths = vec![1.0; count];
    for step in 0..=MOVES {
        if stop() {
            return Ok(None);
        }
        let parts: Vec<_> = sample
            .axis_chunks_iter(Axis(0), sample.nrows().div_ceil(threads).max(1))
            .collect();
        let places = in_parallel(&parts, |part| Ok(assign(part.view(), &directions).0))?.concat();
        if step < MOVES {
            move_centers(sample.view(), &places, &mut directions);
            continue;
        }
        let mut sums = vec![(0.0f32, 0.0f32); count];
        for place in &places {
            sums[place.center].0 += place.cosine;
            sums[place.center].1 += 1.0;
        }
        for (length, (sum, rows)) in lengths.iter_mut().zip(sums) {
            if rows > 0.0 {
                *length = sum / rows;
            }
        }
    }
    Ok(Some(Centers::new(directions, &lengths)))
}
