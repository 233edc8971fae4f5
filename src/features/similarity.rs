//! Similarity of patches: the cosine between their tokens.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use crate::vision::Grid;

/// A rectangle of patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Rows of the grid, from the top.
    pub rows: Range<usize>,
    /// Columns of the grid, from the left.
    pub columns: Range<usize>,
}

impl Region {
    /// Returns the patch in `row` and `column`; `None` outside of the grid.
    pub fn of_patch(grid: Grid, row: usize, column: usize) -> Option<Self> {
        let inside = row < grid.height && column < grid.width;
        inside.then(|| Self {
            rows: row..row + 1,
            columns: column..column + 1,
        })
    }

    /// Returns the patches whose centers lie in a box, or the patch under the middle of the box if
    /// there are none. The sides of the box are fractions of the width and the height.
    pub fn of_box(grid: Grid, [left, top, right, bottom]: [f32; 4]) -> Self {
        let range = |from: f32, to: f32, count: usize| {
            // Patch `i` has its center at (i + 0.5) / count.
            let first = (from * count as f32 - 0.5).ceil().max(0.0) as usize;
            let end = ((to * count as f32 - 0.5).floor() + 1.0).max(0.0) as usize;
            let end = end.min(count);
            if first < end {
                return first..end;
            }
            let middle = (((from + to) / 2.0 * count as f32) as usize).min(count - 1);
            middle..middle + 1
        };
        Self {
            rows: range(top, bottom, grid.height),
            columns: range(left, right, grid.width),
        }
    }
}

/// Returns a vector `[dim]` that describes a region: the mean of its patches' tokens, each scaled
/// to length 1. Tokens of length 0 do not change.
///
/// # Panics
/// If the region lies outside of the grid.
pub fn describe(tokens: ArrayView2<'_, f32>, grid: Grid, region: &Region) -> Array1<f32> {
    let mut patches = Vec::new();
    for row in region.rows.clone() {
        let start = row * grid.width;
        patches.extend(start + region.columns.start..start + region.columns.end);
    }
    let mut chosen = tokens.select(Axis(0), &patches);
    for mut token in chosen.rows_mut() {
        let length = token.dot(&token).sqrt();
        if length > 0.0 {
            token /= length;
        }
    }
    let mean = chosen.mean_axis(Axis(0));
    mean.unwrap_or_else(|| Array1::zeros(tokens.ncols()))
}

/// Computes the cosine between `query` `[dim]` and each of the `tokens` `[h · w, dim]`, -1 to 1, as
/// `[h, w]`; 0 where a length is 0.
///
/// # Panics
/// If the number of tokens is not that of the grid's patches.
pub fn cosines(query: ArrayView1<'_, f32>, tokens: ArrayView2<'_, f32>, grid: Grid) -> Array2<f32> {
    let length = query.dot(&query).sqrt();
    let mut cosines = tokens.dot(&query);
    for (cosine, token) in cosines.iter_mut().zip(tokens.rows()) {
        let lengths = token.dot(&token).sqrt() * length;
        let scaled = (*cosine / lengths).clamp(-1.0, 1.0);
        *cosine = if lengths > 0.0 { scaled } else { 0.0 };
    }
    let map = cosines.into_shape_with_order((grid.height, grid.width));
    map.expect("a token for each patch")
}
