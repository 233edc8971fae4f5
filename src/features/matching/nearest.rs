//! Nearest patches of two images, in both directions, from one product.

use ndarray::Array2;

use super::patches::Patches;
use crate::{
    features::cosines::{for_each_row, largest},
    vision::Grid,
};

/// Nearest patches of two images.
pub(super) struct Nearest {
    /// For each patch of the first image, the most similar one of the second.
    pub(super) of_rows: Vec<Option<Best>>,
    /// For each patch of the second image, the most similar one of the first.
    pub(super) of_columns: Vec<Option<usize>>,
}

/// The most similar patch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Best {
    pub(super) index: usize,
    /// Its cosine.
    pub(super) score: f32,
    /// The best cosine of a patch that is neither the best nor around it; -1 if there is none, or
    /// if it was not requested.
    pub(super) second: f32,
}

/// Finds the nearest patches among those that are chosen, by unit vectors that describe them.
pub(super) fn nearest(
    descriptors_a: &Array2<f32>,
    descriptors_b: &Array2<f32>,
    a: &Patches<'_>,
    b: &Patches<'_>,
    with_second: bool,
) -> Nearest {
    let (rows, columns) = (descriptors_a.nrows(), descriptors_b.nrows());
    let is_chosen =
        |patches: &Patches<'_>, index: usize| patches.chosen.is_none_or(|chosen| chosen[index]);
    let mut of_rows = vec![None; rows];
    let mut column_scores = vec![f32::NEG_INFINITY; columns];
    let mut column_rows = vec![0_u32; columns];
    for_each_row(descriptors_a, descriptors_b, |row, cosines| {
        if !is_chosen(a, row) {
            return;
        }
        if let Some(chosen) = b.chosen {
            for (cosine, &chosen) in cosines.iter_mut().zip(chosen) {
                *cosine = if chosen { *cosine } else { f32::NEG_INFINITY };
            }
        }
        // Without a branch, so that the compiler vectorizes it.
        let best = column_scores.iter_mut().zip(&mut column_rows);
        for (&cosine, (score, index)) in cosines.iter().zip(best) {
            let is_better = cosine > *score;
            *score = if is_better { cosine } else { *score };
            *index = if is_better { row as u32 } else { *index };
        }
        of_rows[row] = best_of(cosines, b.grid, with_second);
    });
    let column_rows = column_rows.into_iter().zip(column_scores);
    let of_columns = column_rows
        .map(|(row, score)| (score > f32::NEG_INFINITY).then_some(row as usize))
        .collect();
    Nearest {
        of_rows,
        of_columns,
    }
}

/// Returns the first of the largest cosines; `None` if no patch is chosen. Overwrites the cosines
/// around it if the second best is requested.
fn best_of(cosines: &mut [f32], grid: Grid, with_second: bool) -> Option<Best> {
    let score = largest(cosines);
    if score == f32::NEG_INFINITY {
        return None;
    }
    let index = cosines.iter().position(|&cosine| cosine == score)?;
    let mut second = -1.0;
    if with_second {
        let (row, column) = (index / grid.width, index % grid.width);
        for near in row.saturating_sub(1)..(row + 2).min(grid.height) {
            let start = near * grid.width;
            let around = column.saturating_sub(1)..(column + 2).min(grid.width);
            cosines[start + around.start..start + around.end].fill(f32::NEG_INFINITY);
        }
        second = largest(cosines).max(-1.0);
    }
    Some(Best {
        index,
        score,
        second,
    })
}
