//! Steps that move points: the edges of a graph attract, while random pairs repel.

use std::{num::NonZero, thread};

use super::graph::Graph;
use crate::features::progress::{Progress, Stage, Watch};

/// A position in the plane.
pub type Point = [f32; 2];

/// Number of random others that repel a point for each neighbor that attracts it.
const REPULSIONS: usize = 5;
/// Largest move of one step along an axis, before it is scaled.
const LARGEST_MOVE: f32 = 4.0;
/// Rows whose random numbers come from one seed, whatever the number of threads.
const ROWS: usize = 512;

/// Moves points from `start` for a number of `epochs`, on `threads` threads. The result does not
/// depend on their number. `None` if `watch` ends it.
pub(super) fn move_points(
    graph: &Graph,
    start: Vec<Point>,
    epochs: usize,
    threads: NonZero<usize>,
    watch: Watch<'_>,
) -> Option<Vec<Point>> {
    let mut points = start;
    let mut moved = points.clone();
    for epoch in 0..epochs {
        if !watch(Progress::new(Stage::Placing, epoch, Some(epochs))) {
            return None;
        }
        let rate = 1.0 - epoch as f32 / epochs as f32;
        let blocks = points.len().div_ceil(ROWS);
        let share = blocks.div_ceil(threads.get()) * ROWS;
        thread::scope(|scope| {
            for (number, share_of) in moved.chunks_mut(share).enumerate() {
                let points = &points;
                scope.spawn(move || {
                    for (block, rows) in share_of.chunks_mut(ROWS).enumerate() {
                        let first = number * share + block * ROWS;
                        let seed = (epoch * points.len() + first) as u64;
                        move_rows(graph, points, first, rows, epoch, rate, seed);
                    }
                });
            }
        });
        points.copy_from_slice(&moved);
    }
    Some(points)
}

/// Moves the rows from `first` on, by the positions of all points before.
fn move_rows(
    graph: &Graph,
    before: &[Point],
    first: usize,
    rows: &mut [Point],
    epoch: usize,
    rate: f32,
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    for (row, point) in rows.iter_mut().enumerate() {
        let mut at = before[first + row];
        for &(other, weight) in graph.of(first + row) {
            // An edge of weight 0.1 attracts in every tenth epoch.
            let due = |epoch: usize| (epoch as f32 * weight).floor();
            if due(epoch + 1) == due(epoch) {
                continue;
            }
            let away = [
                at[0] - before[other as usize][0],
                at[1] - before[other as usize][1],
            ];
            let square = away[0] * away[0] + away[1] * away[1];
            shift(&mut at, away, -2.0 / (1.0 + square), rate);
            for _ in 0..REPULSIONS {
                let other = random.usize(..before.len());
                if other == first + row {
                    continue;
                }
                let away = [at[0] - before[other][0], at[1] - before[other][1]];
                let square = away[0] * away[0] + away[1] * away[1];
                let push = 2.0 / ((0.001 + square) * (1.0 + square));
                shift(&mut at, away, push, rate);
            }
        }
        *point = at;
    }
}
fn shift(at: &mut Point, away: Point, by: f32, rate: f32) {
    for axis in 0..2 {
        at[axis] += rate * (by * away[axis]).clamp(-LARGEST_MOVE, LARGEST_MOVE);
    }
}
