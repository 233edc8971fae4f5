//! A map of many vectors: positions in the plane where similar ones are near each other.
//!
//! The method is that of UMAP (McInnes, Healy and Melville, 2018): each vector is joined with its
//! nearest, edges attract and random pairs repel, from the first two principal components on. Pairs
//! are as near as `1/(1 + d²)` says, as in t-SNE. All points move at the same time by the positions
//! before, so the map depends only on the vectors.

mod graph;
mod steps;

use std::num::NonZero;

use ndarray::{ArrayView2, Axis, s};

pub use self::steps::Point;
use self::{
    graph::{Graph, memberships},
    steps::move_points,
};
use super::{
    neighbors::{nearest, nearest_others},
    pca::Pca,
    progress::Watch,
};
use crate::error::{Error, Result};

/// Number of nearest others that a point is joined with.
const NEIGHBORS: usize = 15;
/// Number of epochs, and of those of small maps.
const EPOCHS: (usize, usize) = (200, 500);
/// Number of points up to which a map is small.
const SMALL: usize = 10_000;
/// Rows on which the principal components are computed.
const SAMPLE: usize = 8192;
/// Width and height of the start.
const SIDE: f32 = 10.0;

/// Lays out `vectors` `[rows, dim]` of length 1, on `threads` threads. `None` if `watch` ends it.
///
/// # Errors
/// If the principal components cannot be computed.
pub fn lay_out(
    vectors: ArrayView2<'_, f32>,
    threads: NonZero<usize>,
    watch: Watch<'_>,
) -> Result<Option<Vec<Point>>> {
    let rows = vectors.nrows();
    if rows < 2 {
        return Ok(Some(vec![[0.0; 2]; rows]));
    }
    let Some(neighbors) = nearest_others(vectors, NEIGHBORS, threads, watch)? else {
        return Ok(None);
    };
    let graph = Graph::new(&neighbors);
    drop(neighbors);
    let epochs = if rows > SMALL { EPOCHS.0 } else { EPOCHS.1 };
    let start = start(vectors)?;
    Ok(move_points(&graph, start, epochs, threads, watch))
}

/// Places `new` vectors `[rows, dim]` among those that have `points`: each where its nearest are,
/// in the mean by how much they belong to it. `None` if `watch` ends it.
///
/// # Errors
/// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) without placed vectors, or for
/// vectors of another width.
pub fn place(
    new: ArrayView2<'_, f32>,
    placed: ArrayView2<'_, f32>,
    points: &[Point],
    threads: NonZero<usize>,
    watch: Watch<'_>,
) -> Result<Option<Vec<Point>>> {
    if placed.nrows() != points.len() {
        return Err(Error::internal("a point for each vector is needed"));
    }
    let Some(neighbors) = nearest(new, placed, NEIGHBORS, threads, watch)? else {
        return Ok(None);
    };
    let of_row = |row: usize| {
        let near = neighbors.of(row);
        let mut sum = [0.0; 2];
        let mut total = 0.0;
        for (weight, &(_, other)) in memberships(near).into_iter().zip(near) {
            total += weight;
            for (sum, at) in sum.iter_mut().zip(points[other as usize]) {
                *sum += weight * at;
            }
        }
        sum.map(|sum| sum / total)
    };
    Ok(Some((0..neighbors.rows()).map(of_row).collect()))
}

/// Returns the first two principal components of each row, scaled to a square, and moved a little
/// so that equal vectors can part.
fn start(vectors: ArrayView2<'_, f32>) -> Result<Vec<Point>> {
    let rows = vectors.nrows();
    let mut points: Vec<Point> = Vec::with_capacity(rows);
    let count = rows.min(SAMPLE);
    let sample: Vec<usize> = (0..count).map(|index| index * rows / count).collect();
    let components = 2.min(count - 1).min(vectors.ncols());
    let pca = Pca::fit(vectors.select(Axis(0), &sample).view(), components)?;
    for first in (0..rows).step_by(SAMPLE) {
        let part = vectors.slice(s![first..rows.min(first + SAMPLE), ..]);
        for row in pca.project(part).rows() {
            points.push([row[0], row.get(1).copied().unwrap_or(0.0)]);
        }
    }
    let mut random = fastrand::Rng::with_seed(rows as u64);
    for axis in 0..2 {
        let values = points.iter().map(|point| point[axis]);
        let (low, high) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let scale = SIDE / (high - low).max(f32::MIN_POSITIVE);
        for point in &mut points {
            point[axis] = (scale * (point[axis] - low)).min(SIDE) + 1e-3 * (random.f32() - 0.5);
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    const TWO: NonZero<usize> = NonZero::new(2).unwrap();

    /// Vectors around `groups` directions, one after the other.
    fn around(groups: usize, rows: usize, seed: u64) -> Array2<f32> {
        const DIM: usize = 24;
        let mut random = fastrand::Rng::with_seed(seed);
        let centers = Array2::from_shape_fn((groups, DIM), |(group, column)| {
            if column % groups == group { 1.0 } else { 0.0 }
        });
        let mut vectors = Array2::from_shape_fn((rows, DIM), |(row, column)| {
            centers[[row % groups, column]] + 0.6 * (random.f32() - 0.5)
        });
        for mut row in vectors.rows_mut() {
            let length = row.dot(&row).sqrt();
            row /= length;
        }
        vectors
    }

    fn laid_out(vectors: &Array2<f32>, threads: NonZero<usize>) -> Vec<Point> {
        let found = lay_out(vectors.view(), threads, &mut |_| true);
        found.expect("possible").expect("not stopped")
    }

    /// Returns the share of the five nearest points that are of the same group.
    fn purity(points: &[Point], new: &[Point], groups: usize) -> f64 {
        let mut same = 0;
        for (row, at) in new.iter().enumerate() {
            let square = |to: &Point| (at[0] - to[0]).powi(2) + (at[1] - to[1]).powi(2);
            let mut others: Vec<usize> = (0..points.len()).filter(|&other| other != row).collect();
            others.sort_by(|&a, &b| square(&points[a]).total_cmp(&square(&points[b])));
            let near = others[..5].iter();
            same += near.filter(|&other| other % groups == row % groups).count();
        }
        same as f64 / (5 * new.len()) as f64
    }

    #[test]
    fn groups_stay_together_whatever_the_number_of_threads() {
        let vectors = around(6, 900, 3);
        let points = laid_out(&vectors, TWO);
        assert!(purity(&points, &points, 6) > 0.99);
        let spread = |points: &[Point]| {
            points.iter().map(|point| point[0]).fold(f32::MIN, f32::max)
                - points.iter().map(|point| point[0]).fold(f32::MAX, f32::min)
        };
        assert!((2.0..200.0).contains(&spread(&points)));
        assert_eq!(laid_out(&vectors, NonZero::<usize>::MIN), points);

        // New vectors get places among their groups.
        let new = around(6, 60, 4);
        let found = place(new.view(), vectors.view(), &points, TWO, &mut |_| true);
        let found = found.expect("of one width").expect("not stopped");
        assert!(purity(&points, &found, 6) > 0.99);
        // Those of the map are where they are, or close.
        let known = vectors.slice(s![..60, ..]);
        let found = place(known, vectors.view(), &points, TWO, &mut |_| true);
        let found = found.expect("of one width").expect("not stopped");
        assert!(purity(&points, &found, 6) > 0.99);
    }

    #[test]
    fn few_or_equal_vectors_have_places() {
        for rows in 0..6 {
            let points = laid_out(&around(2, rows, 5), TWO);
            assert_eq!(points.len(), rows);
            assert!(points.iter().flatten().all(|value| value.is_finite()));
        }
        let equal = Array2::from_elem((40, 4), 0.5);
        let points = laid_out(&equal, TWO);
        assert!(points.iter().flatten().all(|value| value.is_finite()));
        let one = Array2::from_elem((5, 1), 1.0);
        assert_eq!(laid_out(&one, TWO).len(), 5);
    }

    #[test]
    fn a_layout_can_be_ended() {
        let vectors = around(2, 300, 6);
        for last in [0, 1, 40] {
            let mut calls = 0;
            let found = lay_out(vectors.view(), TWO, &mut |_| {
                calls += 1;
                calls <= last
            });
            assert_eq!(found.expect("possible"), None);
        }
    }
}
