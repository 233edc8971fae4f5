//! The nearest of some vectors, found exactly.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use ndarray::ArrayView2;

use crate::{
    error::{Error, Result},
    features::progress::{Progress, Stage, Watch},
};

/// Rows of a block of the product.
const ROWS: usize = 128;
/// Columns of a block: the product then takes 1 MiB, and stays in a core's cache.
const COLUMNS: usize = 2048;

/// The nearest vectors of each of several.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Neighbors {
    count: usize,
    /// `[rows, count]`, by falling cosine.
    entries: Vec<(f32, u32)>,
}

impl Neighbors {
    /// Returns the number of vectors whose nearest are known.
    pub(crate) fn rows(&self) -> usize {
        self.entries.len() / self.count.max(1)
    }

    /// Returns the number of nearest of each vector.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the cosines and rows of the nearest of a vector, the nearest first.
    pub(crate) fn of(&self, row: usize) -> &[(f32, u32)] {
        &self.entries[row * self.count..][..self.count]
    }
}

/// Finds the `count` nearest others of each of the `vectors` `[rows, dim]`, or all others if there
/// are fewer, on `threads` threads. Ties are in the order of the rows. `None` if `watch` ends it.
///
/// # Errors
/// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) for fewer than two vectors.
pub(crate) fn nearest_others(
    vectors: ArrayView2<'_, f32>,
    count: usize,
    threads: NonZero<usize>,
    watch: Watch<'_>,
) -> Result<Option<Neighbors>> {
    let rows = vectors.nrows();
    if rows < 2 {
        let detail = "there are fewer than two vectors, so none has a neighbor";
        return Err(Error::option("vectors", detail));
    }
    let count = count.clamp(1, rows - 1);
    Ok(search(vectors, vectors, count, true, threads, watch))
}

/// Finds the `count` nearest of the `vectors` `[rows, dim]`, or all if there are fewer, of each of
/// the `queries` `[queries, dim]`, on `threads` threads. `None` if `watch` ends it.
///
/// # Errors
/// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) without vectors, or for another
/// width.
pub(crate) fn nearest(
    queries: ArrayView2<'_, f32>,
    vectors: ArrayView2<'_, f32>,
    count: usize,
    threads: NonZero<usize>,
    watch: Watch<'_>,
) -> Result<Option<Neighbors>> {
    if vectors.nrows() == 0 || queries.ncols() != vectors.ncols() {
        let detail = "there are none of the width of the queries";
        return Err(Error::option("vectors", detail));
    }
    let count = count.clamp(1, vectors.nrows());
    Ok(search(queries, vectors, count, false, threads, watch))
}

/// Finds the nearest of each query; `of_others` if the queries are the vectors, and none is its own
/// neighbor.
fn search(
    queries: ArrayView2<'_, f32>,
    vectors: ArrayView2<'_, f32>,
    count: usize,
    of_others: bool,
    threads: NonZero<usize>,
    watch: Watch<'_>,
) -> Option<Neighbors> {
    let (rows, dim) = queries.dim();
    let (queries, vectors) = (queries.as_standard_layout(), vectors.as_standard_layout());
    let queries = queries.as_slice().expect("in standard layout");
    let vectors = vectors.as_slice().expect("in standard layout");
    let mut entries = vec![(f32::NEG_INFINITY, u32::MAX); rows * count];
    let blocks = Mutex::new(entries.chunks_mut(ROWS * count).enumerate());
    let total = rows.div_ceil(ROWS);
    let done = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let work = |mut watch: Option<Watch<'_>>| {
        let mut product = vec![0.0; ROWS * COLUMNS];
        while !stopped.load(Ordering::Relaxed) {
            let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((block, entries)) = next else {
                return;
            };
            let own = of_others.then_some(block * ROWS);
            let queries = &queries[block * ROWS * dim..][..entries.len() / count * dim];
            search_block(queries, vectors, dim, own, entries, &mut product);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(watch) = &mut watch
                && !watch(Progress::new(Stage::Comparing, done, Some(total)))
            {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            scope.spawn(|| work(None));
        }
        work(Some(watch));
    });
    (!stopped.into_inner()).then_some(Neighbors { count, entries })
}

/// Finds the nearest of some queries, whose lists are `entries`. `own` is the row of the first
/// query among the vectors, if they are the same.
fn search_block(
    queries: &[f32],
    vectors: &[f32],
    dim: usize,
    own: Option<usize>,
    entries: &mut [(f32, u32)],
    product: &mut [f32],
) {
    let rows = vectors.len() / dim;
    let height = queries.len() / dim;
    let count = entries.len() / height;
    let left = MatRef::from_row_major_slice(queries, height, dim);
    for start in (0..rows).step_by(COLUMNS) {
        let width = COLUMNS.min(rows - start);
        let product = &mut product[..height * width];
        let right = &vectors[start * dim..][..width * dim];
        matmul(
            MatMut::from_row_major_slice_mut(product, height, width),
            Accum::Replace,
            left,
            MatRef::from_row_major_slice(right, width, dim).transpose(),
            1.0,
            Par::Seq,
        );
        for (offset, scores) in product.chunks(width).enumerate() {
            let list = &mut entries[offset * count..][..count];
            keep_best(list, scores, start, own.map(|first| first + offset));
        }
    }
}

/// Adds the rows from `start` on, with these scores, to the list of the row `own`.
fn keep_best(list: &mut [(f32, u32)], scores: &[f32], start: usize, own: Option<usize>) {
    // Most groups have nothing for the list, which a few instructions of the processor find.
    for (group, scores) in scores.chunks(16).enumerate() {
        let worst = list[list.len() - 1].0;
        if !scores
            .iter()
            .fold(false, |any, &score| any | (score > worst))
        {
            continue;
        }
        for (offset, &score) in scores.iter().enumerate() {
            let row = start + group * 16 + offset;
            if Some(row) != own && score > list[list.len() - 1].0 {
                let place = list.partition_point(|&(other, _)| other >= score);
                list[place..].rotate_right(1);
                list[place] = (score, row as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Vectors of length 1 that look random.
    fn made_up(rows: usize, dim: usize) -> Array2<f32> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut vectors = Array2::from_shape_fn((rows, dim), |_| random.f32() - 0.5);
        for mut row in vectors.rows_mut() {
            let length = row.dot(&row).sqrt();
            row /= length;
        }
        vectors
    }

    #[test]
    fn the_nearest_are_those_of_a_full_sort() {
        let vectors = made_up(2500, 9);
        let threads = NonZero::new(3).expect("not 0");
        let found = nearest_others(vectors.view(), 7, threads, &mut |_| true)
            .expect("enough vectors")
            .expect("not stopped");
        assert_eq!(found.rows(), 2500);
        let scores = vectors.dot(&vectors.t());
        for row in (0..2500).step_by(97) {
            let mut others: Vec<usize> = (0..2500).filter(|&other| other != row).collect();
            others.sort_by(|&a, &b| scores[[row, b]].total_cmp(&scores[[row, a]]));
            for (&(score, other), expected) in found.of(row).iter().zip(others) {
                assert!((score - scores[[row, expected]]).abs() < 1e-6);
                assert!((scores[[row, other as usize]] - score).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn there_are_no_more_neighbors_than_others() {
        let vectors = made_up(3, 4);
        let one = NonZero::<usize>::MIN;
        let found = nearest_others(vectors.view(), 10, one, &mut |_| true);
        let found = found.expect("enough").expect("not stopped");
        assert_eq!(found.of(1).len(), 2);
        assert!(nearest_others(made_up(1, 4).view(), 10, one, &mut |_| true).is_err());
        let stopped = nearest_others(vectors.view(), 10, one, &mut |_| false);
        assert_eq!(stopped.expect("enough"), None);
    }

    #[test]
    fn vectors_among_others_are_their_own_nearest() {
        let vectors = made_up(300, 9);
        let queries = vectors.slice(ndarray::s![100..250, ..]);
        let one = NonZero::<usize>::MIN;
        let found = nearest(queries, vectors.view(), 3, one, &mut |_| true);
        let found = found.expect("of one width").expect("not stopped");
        assert_eq!((found.rows(), found.count()), (150, 3));
        for row in 0..150 {
            let [(score, first), (next, _), _] = *found.of(row) else {
                panic!("three");
            };
            assert_eq!(first as usize, row + 100);
            assert!((score - 1.0).abs() < 1e-5 && next < score);
        }
        let others = made_up(20, 8);
        assert!(nearest(queries, others.view(), 3, one, &mut |_| true).is_err());
    }
}
