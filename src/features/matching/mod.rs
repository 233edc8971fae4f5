//! Correspondences of two images: patches that are each other's nearest neighbors, and the
//! transform that most of them agree on.
//!
//! What is compared is the place around a patch: the mean of the unit tokens of 3×3 patches with
//! weights 1, 2, 1 along each axis. Single tokens lie one patch off more often. Each dimension is
//! scaled by its root mean square over both images, because the gain of a model's final norm gives
//! a few dimensions most of the weight otherwise. The cosines of all places of two images are one
//! product, which is computed in blocks of rows, so that it takes little memory. Most wrong matches
//! stand alone: a match counts only if those of the patches around it move alike, which is the idea
//! of grid-based motion statistics (Bian et al. 2017).
//!
//! A match has the center of a patch in the first image and the peak of the similarity in the
//! second one: between patches, where the parabola through the best patch and its neighbors has its
//! maximum, relative to that of the similarity of the first image to itself. Measurements are in
//! `docs/patches.md`.

mod geometry;
mod nearest;
mod patches;

use ndarray::{Array1, Array2};

pub use self::geometry::{Geometry, MIN_INLIERS, Transform, Transformed, estimate};
use self::nearest::{Best, Nearest, nearest};
pub use self::patches::Patches;
use crate::{names::option_enum, vision::Grid};

option_enum! {
    /// Tokens that are compared.
    #[derive(Default)]
    pub enum Level {
        /// Those of the earliest block that a model outputs: the fourth from the end, or the first
        /// of a model with fewer. They tell places of one scene apart.
        #[default]
        Early,
        /// Those of the last block. They say what a patch shows, so that parts of different objects
        /// match.
        Last,
    }
}

/// Conditions on matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Minimum cosine, -1 to 1.
    pub min_score: f32,
    /// Maximum quotient of the distances to the best patch and to the second best, 0 to 1. The
    /// second best is not one of the patches around the best, as these show nearly the same. The
    /// distance of unit vectors is √(2 − 2·cosine). At 1 all matches are kept.
    pub ratio: f32,
    /// Minimum number of the eight patches around that have matches which move alike, 0 to 8. At
    /// the border of an image, all that are there suffice.
    pub support: usize,
    /// Whether to look for the peak between patches.
    pub subpixel: bool,
}

/// Two patches that are each other's nearest neighbors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Index of the patch in the first image.
    pub a: usize,
    /// Index of the patch in the second image.
    pub b: usize,
    /// Cosine of the places around them, -1 to 1.
    pub score: f32,
    /// Peak of the similarity to the first patch, in patches right of and below the center of the
    /// second one; -0.5 to 0.5.
    pub peak_offset: [f32; 2],
}

/// Finds the matches of two images, the most similar first. Of equally similar patches the first is
/// the nearest.
pub fn matches(a: &Patches<'_>, b: &Patches<'_>, conditions: &Conditions) -> Vec<Match> {
    let scales = scales(a, b);
    let descriptors_a = descriptors(a, &scales);
    let descriptors_b = descriptors(b, &scales);
    let Nearest {
        of_rows,
        of_columns,
    } = nearest(&descriptors_a, &descriptors_b, a, b, conditions.ratio < 1.0);
    let is_mutual = |index, best: &Best| of_columns[best.index] == Some(index);
    let mutual: Vec<Option<Best>> = of_rows
        .into_iter()
        .enumerate()
        .map(|(index, best)| best.filter(|best| is_mutual(index, best)))
        .collect();
    let mut matches = Vec::new();
    for (index, best) in mutual.iter().enumerate() {
        let Some(best) = best else { continue };
        let is_distinct = conditions.ratio >= 1.0
            || distance(best.score) <= conditions.ratio * distance(best.second);
        if best.score >= conditions.min_score
            && is_distinct
            && support(&mutual, index, best.index, a.grid, b.grid).is_at_least(conditions.support)
        {
            let descriptor = descriptors_a.row(index);
            let in_a = |other: usize| descriptor.dot(&descriptors_a.row(other));
            let in_b = |other: usize| descriptor.dot(&descriptors_b.row(other));
            let peak_offset = match conditions.subpixel {
                true => {
                    // Around the patch itself the similarity is not symmetric, either.
                    let own = peak(a.grid, index, 1.0, in_a);
                    let found = peak(b.grid, best.index, best.score, in_b);
                    [0, 1].map(|axis| (found[axis] - own[axis]).clamp(-0.5, 0.5))
                }
                false => [0.0; 2],
            };
            matches.push(Match {
                a: index,
                b: best.index,
                score: best.score.clamp(-1.0, 1.0),
                peak_offset,
            });
        }
    }
    // Stable: equal scores stay in the order of the first image.
    matches.sort_by(|one, other| other.score.total_cmp(&one.score));
    matches
}

/// Distance in patches up to which two moves are alike. A turn by 30° and a scale of 1.4 move a
/// neighbor by less.
const MAX_MOVE_DIFFERENCE: f64 = 1.6;

/// Patches around a patch.
struct Support {
    /// Number of those whose matches move alike.
    found: usize,
    /// Number of those in the image: fewer than eight at its border.
    inside: usize,
}

impl Support {
    fn is_at_least(&self, wanted: usize) -> bool {
        self.found >= wanted.min(self.inside)
    }
}

/// Counts the patches around patch `from` of the first image whose matches lie around patch `to` of
/// the second image in the same way.
fn support(mutual: &[Option<Best>], from: usize, to: usize, grid_a: Grid, grid_b: Grid) -> Support {
    let place =
        |index: usize, grid: Grid| [(index / grid.width) as f64, (index % grid.width) as f64];
    let (from, to) = (place(from, grid_a), place(to, grid_b));
    let (row, column) = (from[0] as usize, from[1] as usize);
    let rows = row.saturating_sub(1)..(row + 2).min(grid_a.height);
    let columns = column.saturating_sub(1)..(column + 2).min(grid_a.width);
    let around = rows.flat_map(|row| columns.clone().map(move |column| (row, column)));
    let is_alike = |&(near_row, near_column): &(usize, usize)| {
        let near = near_row * grid_a.width + near_column;
        let Some(best) = &mutual[near] else {
            return false;
        };
        let [near, matched] = [place(near, grid_a), place(best.index, grid_b)];
        let moved = [0, 1].map(|axis| (matched[axis] - to[axis]) - (near[axis] - from[axis]));
        (near_row, near_column) != (row, column) && moved[0].hypot(moved[1]) <= MAX_MOVE_DIFFERENCE
    };
    Support {
        inside: around.clone().count() - 1,
        found: around.filter(is_alike).count(),
    }
}

/// Returns the inverse of the root mean square of each dimension over two images; 0 for a dimension
/// without values.
fn scales(a: &Patches<'_>, b: &Patches<'_>) -> Array1<f32> {
    let mut squares = Array1::<f32>::zeros(a.tokens.ncols());
    for token in a.tokens.rows().into_iter().chain(b.tokens.rows()) {
        squares.zip_mut_with(&token, |square, value| *square += value * value);
    }
    let count = (a.tokens.nrows() + b.tokens.nrows()) as f32;
    squares.mapv(|square| match square > 0.0 {
        true => (square / count).sqrt().recip(),
        false => 0.0,
    })
}

/// Describes the place around each patch by a unit vector: `[h · w, dim]`.
fn descriptors(patches: &Patches<'_>, scales: &Array1<f32>) -> Array2<f32> {
    let unit = unit_rows(&patches.tokens * scales);
    let Grid { height, width } = patches.grid;
    let across = averaged(&unit, |index| {
        let (start, column) = (index / width * width, index % width);
        [
            start + column.saturating_sub(1),
            start + (column + 1).min(width - 1),
        ]
    });
    let both = averaged(&across, |index| {
        let (row, column) = (index / width, index % width);
        [
            row.saturating_sub(1) * width + column,
            (row + 1).min(height - 1) * width + column,
        ]
    });
    unit_rows(both)
}

/// Averages each row, with a weight of 2, with two others.
fn averaged(rows: &Array2<f32>, others: impl Fn(usize) -> [usize; 2]) -> Array2<f32> {
    let mut averaged = Array2::zeros(rows.dim());
    for (index, row) in averaged.rows_mut().into_iter().enumerate() {
        let [before, after] = others(index).map(|other| rows.row(other));
        ndarray::Zip::from(row)
            .and(before)
            .and(rows.row(index))
            .and(after)
            .for_each(|mean, &before, &center, &after| {
                *mean = 0.25 * before + 0.5 * center + 0.25 * after;
            });
    }
    averaged
}

/// Distance of unit vectors with this cosine; at least what rounding makes of equal ones, so that
/// of two equal places neither is distinct.
fn distance(cosine: f32) -> f32 {
    (2.0 - 2.0 * cosine).max(1e-6).sqrt()
}

/// Scales each row to length 1; a row of zeros stays.
fn unit_rows(mut rows: Array2<f32>) -> Array2<f32> {
    for mut row in rows.rows_mut() {
        let length = row.dot(&row).sqrt();
        if length > 0.0 {
            row /= length;
        }
    }
    rows
}

/// Returns where the parabolas through a patch and its neighbors peak, across and down. There is no
/// shift along an axis at whose end the patch lies.
fn peak(grid: Grid, index: usize, center: f32, cosine: impl Fn(usize) -> f32) -> [f32; 2] {
    let (row, column) = (index / grid.width, index % grid.width);
    let along = |position: usize, count: usize, step: usize| {
        if position == 0 || position + 1 == count {
            return 0.0;
        }
        let (before, after) = (cosine(index - step), cosine(index + step));
        let curvature = before - 2.0 * center + after;
        if curvature >= 0.0 {
            return 0.0;
        }
        ((before - after) / (2.0 * curvature)).clamp(-0.5, 0.5)
    };
    [
        along(column, grid.width, 1),
        along(row, grid.height, grid.width),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid {
        height: 9,
        width: 9,
    };

    /// Tokens that fall off smoothly around the patch that each of them is of.
    fn tokens(shift: f32) -> Array2<f32> {
        let patches = GRID.patches();
        Array2::from_shape_fn((patches, patches), |(patch, value)| {
            let column = (patch % GRID.width) as f32 + shift - (value % GRID.width) as f32;
            let row = (patch / GRID.width) as f32 - (value / GRID.width) as f32;
            (-(column * column + row * row) / 2.0).exp()
        })
    }

    fn patches<'a>(tokens: &'a Array2<f32>, chosen: Option<&'a [bool]>) -> Patches<'a> {
        Patches {
            tokens: tokens.view(),
            grid: GRID,
            chosen,
        }
    }

    const ALL: Conditions = Conditions {
        min_score: 0.0,
        ratio: 1.0,
        support: 0,
        subpixel: false,
    };

    #[test]
    fn each_patch_of_an_image_matches_itself() {
        let tokens = tokens(0.0);
        let found = matches(&patches(&tokens, None), &patches(&tokens, None), &ALL);
        assert_eq!(found.len(), GRID.patches());
        for found in found {
            assert_eq!(found.a, found.b);
            assert!((found.score - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn the_peak_lies_between_patches() {
        let a = tokens(0.0);
        let b = tokens(-0.3);
        let conditions = Conditions {
            subpixel: true,
            ..ALL
        };
        let found = matches(&patches(&a, None), &patches(&b, None), &conditions);
        let inner = found.iter().find(|found| found.a == GRID.patches() / 2);
        let inner = inner.expect("a match of the middle patch");
        assert_eq!(inner.b, inner.a);
        assert!(
            (inner.peak_offset[0] - 0.3).abs() < 0.05,
            "{:?}",
            inner.peak_offset
        );
        assert!(inner.peak_offset[1].abs() < 1e-3, "{:?}", inner.peak_offset);
        let edge = found.iter().find(|found| found.b == 0);
        assert_eq!(edge.expect("a match at the corner").peak_offset, [0.0; 2]);
    }

    #[test]
    fn only_chosen_patches_match() {
        let tokens = tokens(0.0);
        let mut chosen = vec![false; GRID.patches()];
        chosen[3] = true;
        chosen[7] = true;
        let one = patches(&tokens, Some(&chosen));
        let found = matches(&one, &patches(&tokens, None), &ALL);
        let mut indices: Vec<usize> = found.iter().map(|found| found.a).collect();
        indices.sort_unstable();
        assert_eq!(indices, [3, 7]);
        let none = vec![false; GRID.patches()];
        let none = patches(&tokens, Some(&none));
        assert_eq!(matches(&one, &none, &ALL), []);
        assert_eq!(matches(&none, &one, &ALL), []);
    }

    #[test]
    fn conditions_leave_out_what_is_not_distinct_or_alone() {
        let tokens = tokens(0.0);
        let count = |conditions: Conditions, chosen: Option<&[bool]>| {
            let one = patches(&tokens, chosen);
            matches(&one, &patches(&tokens, None), &conditions).len()
        };
        let all = GRID.patches();
        let alike = Conditions {
            min_score: 1.1,
            ..ALL
        };
        assert_eq!(count(alike, None), 0);
        let distinct = Conditions { ratio: 0.5, ..ALL };
        assert_eq!(count(distinct, None), all);
        // A patch at a corner has three around it, which suffice.
        let supported = |support| Conditions { support, ..ALL };
        assert_eq!(count(supported(3), None), all);
        assert_eq!(count(supported(8), None), all);
        let mut pair = vec![false; all];
        pair[40] = true;
        pair[41] = true;
        assert_eq!(count(supported(1), Some(&pair)), 2);
        assert_eq!(count(supported(2), Some(&pair)), 0);
    }

    #[test]
    fn a_place_that_is_twice_in_an_image_is_not_distinct() {
        // The right half of a wide image repeats its left half.
        let half = tokens(0.0);
        let grid = Grid {
            height: GRID.height,
            width: 2 * GRID.width,
        };
        let twice = Array2::from_shape_fn((grid.patches(), half.ncols()), |(patch, value)| {
            let (row, column) = (patch / grid.width, patch % grid.width % GRID.width);
            half[(row * GRID.width + column, value)]
        });
        let wide = Patches {
            tokens: twice.view(),
            grid,
            chosen: None,
        };
        let distinct = Conditions { ratio: 0.9, ..ALL };
        let ambiguous = matches(&patches(&half, None), &wide, &ALL).len();
        let kept = matches(&patches(&half, None), &wide, &distinct).len();
        assert!(ambiguous > 10 && kept < ambiguous / 2, "{ambiguous} {kept}");
    }
}
