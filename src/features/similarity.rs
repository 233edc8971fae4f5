//! How alike patches are: the cosine between their tokens.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

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
    /// The patch in `row` and `column`; `None` outside of the grid.
    pub fn of_patch(grid: Grid, row: usize, column: usize) -> Option<Self> {
        let inside = row < grid.height && column < grid.width;
        inside.then(|| Self {
            rows: row..row + 1,
            columns: column..column + 1,
        })
    }

    /// The patches whose centers lie in a box, whose sides are shares of the width and the height;
    /// at least the one under the middle of the box.
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

/// `[patches, dim]`: the tokens scaled to length 1. One of length 0 stays as it is.
fn unit(tokens: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut unit = tokens.to_owned();
    for mut row in unit.rows_mut() {
        let length = row.dot(&row).sqrt();
        if length > 0.0 {
            row /= length;
        }
    }
    unit
}

/// `[dim]`: what the patches of a region have in common, the mean of their tokens scaled to length
/// 1.
///
/// # Panics
/// For a region that lies outside of the grid.
pub fn describe(tokens: ArrayView2<'_, f32>, grid: Grid, region: &Region) -> Array1<f32> {
    let patches = region.rows.clone().flat_map(|row| {
        region
            .columns
            .clone()
            .map(move |column| row * grid.width + column)
    });
    let patches: Vec<usize> = patches.collect();
    let chosen = unit(tokens.select(ndarray::Axis(0), &patches).view());
    chosen
        .mean_axis(ndarray::Axis(0))
        .unwrap_or_else(|| Array1::zeros(tokens.ncols()))
}

/// `[h, w]`: the cosine between `query` `[dim]` and each of the `tokens` `[h · w, dim]`, -1 to 1; 0
/// where a length is 0.
///
/// # Panics
/// If there are not as many tokens as the grid has patches.
pub fn cosines(query: ArrayView1<'_, f32>, tokens: ArrayView2<'_, f32>, grid: Grid) -> Array2<f32> {
    let length = query.dot(&query).sqrt();
    let dots = tokens.dot(&query);
    let cosine = |(token, &dot): (ArrayView1<'_, f32>, &f32)| {
        let lengths = token.dot(&token).sqrt() * length;
        if lengths > 0.0 {
            (dot / lengths).clamp(-1.0, 1.0)
        } else {
            0.0
        }
    };
    let values = tokens.rows().into_iter().zip(&dots).map(cosine).collect();
    Array2::from_shape_vec((grid.height, grid.width), values).expect("a token for each patch")
}
