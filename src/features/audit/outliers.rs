//! Outliers: vectors that are far from all others.

use crate::features::neighbors::Neighbors;

/// Number of nearest others whose mean cosine counts.
const NEAREST: usize = 10;
/// Deviations from the median above which a distance is unusual (Iglewicz and Hoaglin, 1993).
const DEVIATIONS: f32 = 3.5;
/// Standard deviation of a normal distribution whose median absolute deviation is 1.
const OF_NORMAL: f32 = 1.4826;

/// An image that has no similar ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    /// The row.
    pub row: u32,
    /// Its distance from the median of all distances, in robust standard deviations.
    pub score: f32,
    /// 1 less the mean cosine with its nearest others.
    pub distance: f32,
}

/// Returns the rows whose distance from their ten nearest others is unusually large, the farthest
/// first.
pub(super) fn outliers(neighbors: &Neighbors) -> Vec<Outlier> {
    let distances: Vec<f32> = (0..neighbors.rows())
        .map(|row| {
            let near = neighbors.of(row);
            let near = &near[..near.len().min(NEAREST)];
            1.0 - near.iter().map(|(score, _)| score).sum::<f32>() / near.len() as f32
        })
        .collect();
    let middle = median(distances.clone());
    let deviations = distances.iter().map(|distance| (distance - middle).abs());
    let scale = OF_NORMAL * median(deviations.collect());
    if scale == 0.0 {
        return Vec::new();
    }
    let mut found: Vec<Outlier> = distances
        .into_iter()
        .enumerate()
        .map(|(row, distance)| Outlier {
            row: row as u32,
            score: (distance - middle) / scale,
            distance,
        })
        .filter(|outlier| outlier.score > DEVIATIONS)
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    found
}

fn median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}
