//! Groups of similar images by spherical k-means (Dhillon and Modha, 2001).

use std::{collections::BTreeSet, num::NonZero};

use ndarray::{Array2, ArrayView2, Axis, s};

use super::outliers::Outlier;
use crate::{
    error::{Error, Result},
    features::{
        kmeans::{Place, assign, move_centers},
        progress::{Progress, Stage, Watch},
    },
};

/// Maximum number of moves of the centers.
const MOVES: usize = 50;
/// Rows whose products with the sums of the groups are made together.
const BLOCK: usize = 4096;
/// Numbers of clusters that are tried.
const CANDIDATES: [usize; 13] = [2, 3, 4, 5, 6, 8, 10, 14, 20, 28, 40, 60, 100];
/// Rows on which the number of clusters is chosen.
const SAMPLE: usize = 8192;
/// Number of starts, of which the best counts.
const STARTS: u64 = 4;

/// A group of similar images.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The rows, the nearest to the center first.
    pub rows: Vec<u32>,
    /// Mean cosine of the rows with the center.
    pub cohesion: f32,
}

/// All groups, the largest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// The groups; each row is in one of them.
    pub clusters: Vec<Cluster>,
    /// How well they are apart, from −1 to 1: the mean of `(b − a) / max(a, b)` with the mean
    /// cosine distances `a` to the other rows of the group and `b` to those of the nearest other
    /// group.
    pub silhouette: f32,
}

/// Assigns each of the `vectors` `[rows, dim]` to one of `count` groups, or of as many as have the
/// best silhouette on a sample. Outliers belong to the nearest group, and move no centers. `None`
/// if `watch` ends it.
///
/// # Errors
/// [`Kind::InvalidOption`](crate::error::Kind::InvalidOption) for a number above that of the
/// vectors without the outliers.
pub(super) fn cluster(
    vectors: ArrayView2<'_, f32>,
    outliers: &[Outlier],
    count: Option<NonZero<usize>>,
    watch: Watch<'_>,
) -> Result<Option<Clusters>> {
    let outliers: BTreeSet<u32> = outliers.iter().map(|outlier| outlier.row).collect();
    let usual: Vec<usize> = (0..vectors.nrows())
        .filter(|&row| !outliers.contains(&(row as u32)))
        .collect();
    let usual = vectors.select(Axis(0), &usual);
    let count = match count {
        Some(count) if count.get() > usual.nrows() => {
            let range = format_args!("1 to {}", usual.nrows());
            return Err(Error::out_of_range("clusters", count, range));
        }
        Some(count) => count.get(),
        None => match best_count(usual.view(), watch) {
            Some(count) => count,
            None => return Ok(None),
        },
    };
    if !watch(grouping(CANDIDATES.len())) {
        return Ok(None);
    }
    let Some(fit) = best_start(usual.view(), count, CANDIDATES.len(), watch) else {
        return Ok(None);
    };
    let centers = fit.centers;
    drop(usual);
    let (places, _) = assign(vectors, &centers);
    let mut clusters: Vec<Vec<(f32, u32)>> = vec![Vec::new(); count];
    for (row, place) in places.iter().enumerate() {
        clusters[place.center].push((place.cosine, row as u32));
    }
    let mut clusters: Vec<Cluster> = clusters
        .into_iter()
        .filter(|rows| !rows.is_empty())
        .map(|mut rows| {
            rows.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let sum: f32 = rows.iter().map(|(cosine, _)| cosine).sum();
            Cluster {
                cohesion: sum / rows.len() as f32,
                rows: rows.into_iter().map(|(_, row)| row).collect(),
            }
        })
        .collect();
    clusters.sort_by(|a, b| b.rows.len().cmp(&a.rows.len()).then(a.rows.cmp(&b.rows)));
    Ok(Some(Clusters {
        silhouette: silhouette(vectors, &groups_of(&places), count),
        clusters,
    }))
}

/// Returns the number of clusters with the best silhouette on an even sample.
fn best_count(vectors: ArrayView2<'_, f32>, watch: Watch<'_>) -> Option<usize> {
    let rows = vectors.nrows();
    let sampled: Vec<usize> = match rows <= SAMPLE {
        true => (0..rows).collect(),
        false => (0..SAMPLE).map(|index| index * rows / SAMPLE).collect(),
    };
    let sample = vectors.select(Axis(0), &sampled);
    let mut best = (f32::NEG_INFINITY, 1);
    for (step, &count) in CANDIDATES.iter().enumerate() {
        if !watch(grouping(step)) {
            return None;
        }
        // A group has four members on average at least.
        if 4 * count > sample.nrows() {
            break;
        }
        let groups = groups_of(&best_start(sample.view(), count, step, watch)?.places);
        let quality = silhouette(sample.view(), &groups, count);
        if quality > best.0 {
            best = (quality, count);
        }
    }
    Some(best.1)
}

/// Returns the progress after `done` numbers of clusters are tried.
fn grouping(done: usize) -> Progress {
    Progress::new(Stage::Grouping, done, Some(CANDIDATES.len() + 1))
}

struct Fit {
    centers: Array2<f32>,
    places: Vec<Place>,
    /// Sum of the cosines with the centers.
    total: f64,
}

/// Returns the best fit of several starts. `done` numbers of clusters were tried before. `None` if
/// `watch` ends it.
fn best_start(
    vectors: ArrayView2<'_, f32>,
    count: usize,
    done: usize,
    watch: Watch<'_>,
) -> Option<Fit> {
    let mut best: Option<Fit> = None;
    for seed in 0..STARTS {
        let found = fit(vectors, count, seed, &mut || watch(grouping(done)))?;
        if best.as_ref().is_none_or(|best| found.total >= best.total) {
            best = Some(found);
        }
    }
    best
}

/// Returns a fit, or `None` if `goes_on`, which is asked before each step, ends it.
fn fit(
    vectors: ArrayView2<'_, f32>,
    count: usize,
    seed: u64,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<Fit> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut centers = first_centers(vectors, count, &mut random, goes_on)?;
    let (mut places, mut total) = assign(vectors, &centers);
    for _ in 0..MOVES {
        if !goes_on() {
            return None;
        }
        move_centers(vectors, &places, &mut centers);
        let before = total;
        (places, total) = assign(vectors, &centers);
        if total - before <= 1e-6 * before.abs() {
            break;
        }
    }
    Some(Fit {
        centers,
        places,
        total,
    })
}

/// Chooses rows as centers, each with a probability that grows with its distance from the centers
/// before it (k-means++, Arthur and Vassilvitskii, 2007).
fn first_centers(
    vectors: ArrayView2<'_, f32>,
    count: usize,
    random: &mut fastrand::Rng,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<Array2<f32>> {
    let rows = vectors.nrows();
    let mut centers = Array2::zeros((count, vectors.ncols()));
    let mut distances = vec![f32::INFINITY; rows];
    let mut chosen = random.usize(..rows);
    for index in 0..count {
        if !goes_on() {
            return None;
        }
        centers.row_mut(index).assign(&vectors.row(chosen));
        let cosines = vectors.dot(&centers.row(index));
        for (distance, cosine) in distances.iter_mut().zip(cosines) {
            *distance = distance.min((1.0 - cosine).max(0.0));
        }
        let total: f64 = distances.iter().copied().map(f64::from).sum();
        let mut left = random.f64() * total;
        chosen = distances
            .iter()
            .position(|&distance| {
                left -= f64::from(distance);
                left < 0.0
            })
            .unwrap_or_else(|| random.usize(..rows));
    }
    Some(centers)
}

fn groups_of(places: &[Place]) -> Vec<usize> {
    places.iter().map(|place| place.center).collect()
}

/// Returns the mean silhouette (Rousseeuw, 1987) with cosine distances. The mean distance from a
/// row to a group is 1 less the product with the mean of its vectors, so no pairs are needed.
fn silhouette(vectors: ArrayView2<'_, f32>, places: &[usize], count: usize) -> f32 {
    let mut sums = Array2::<f32>::zeros((count, vectors.ncols()));
    let mut sizes = vec![0.0f32; count];
    for (row, &place) in vectors.rows().into_iter().zip(places) {
        let mut sum = sums.row_mut(place);
        sum += &row;
        sizes[place] += 1.0;
    }
    let mut total = 0.0;
    for start in (0..vectors.nrows()).step_by(BLOCK) {
        let end = vectors.nrows().min(start + BLOCK);
        let products = vectors.slice(s![start..end, ..]).dot(&sums.t());
        for (products, &place) in products.rows().into_iter().zip(&places[start..end]) {
            // A group of one has a silhouette of 0.
            if sizes[place] < 2.0 {
                continue;
            }
            let own = 1.0 - (products[place] - 1.0) / (sizes[place] - 1.0);
            let others = products.iter().zip(&sizes).enumerate();
            let nearest = others
                .filter(|&(group, (_, &size))| group != place && size > 0.0)
                .map(|(_, (product, size))| 1.0 - product / size)
                .fold(f32::INFINITY, f32::min);
            let larger = own.max(nearest);
            if larger > 0.0 && larger.is_finite() {
                total += f64::from((nearest - own) / larger);
            }
        }
    }
    (total / places.len() as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums are a shortcut for all pairs.
    #[test]
    fn the_silhouette_is_that_of_all_pairs() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut vectors = Array2::from_shape_fn((60, 4), |_| random.f32() - 0.5);
        for mut row in vectors.rows_mut() {
            let length = row.dot(&row).sqrt();
            row /= length;
        }
        let places: Vec<usize> = (0..60)
            .map(|row| if row == 9 { 3 } else { row % 3 })
            .collect();
        let mut expected = 0.0;
        for row in 0..60 {
            let mean = |group: usize| {
                let others = (0..60).filter(|&other| other != row && places[other] == group);
                let distances = others.map(|other| 1.0 - vectors.row(row).dot(&vectors.row(other)));
                let distances: Vec<f32> = distances.collect();
                distances.iter().sum::<f32>() / distances.len() as f32
            };
            let own = mean(places[row]);
            let others = (0..4).filter(|&group| group != places[row]).map(mean);
            let nearest = others.fold(f32::INFINITY, f32::min);
            if !own.is_nan() {
                expected += (nearest - own) / nearest.max(own) / 60.0;
            }
        }
        let found = silhouette(vectors.view(), &places, 4);
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}
