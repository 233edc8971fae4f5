//! The similarity or homography that most matches agree on, by RANSAC.
//!
//! Samples of the fewest matches that determine a transform are drawn with a fixed seed, so that an
//! answer never varies. The score of a transform is that of MSAC (Torr & Zisserman 2000): matches
//! beyond the tolerance cost 1, the others their squared error. Each better transform is fitted
//! again to all its inliers (locally optimized RANSAC, Chum et al. 2003), homographies by the
//! normalized direct linear transform (Hartley & Zisserman, Multiple View Geometry, §4.4).

use faer::{Mat, linalg::solvers::Solve};

use crate::names::option_enum;

option_enum! {
    /// Transform that matches are checked with.
    #[derive(Default)]
    pub enum Geometry {
        /// None: all matches are kept.
        #[default]
        None,
        /// Shift, rotation and one scale.
        Similarity,
        /// Any view of a plane.
        Homography,
    }
}

/// A projective transform: (x, y, 1) becomes a multiple of the new point.
pub type Transform = [[f64; 3]; 3];

type Point = [f64; 2];
/// A point of the first image, and the one that matches it in the second.
type Pair = (Point, Point);

/// A transform, and the matches that agree with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Transformed {
    /// From points of the first image to points of the second.
    pub transform: Transform,
    /// Whether each match is within the tolerance.
    pub inliers: Vec<bool>,
}

/// Minimum number of matches that have to agree. Fewer do so by chance.
pub const MIN_INLIERS: usize = 8;
/// Maximum number of samples.
const MAX_SAMPLES: usize = 4000;
/// Probability that no sample without an outlier is drawn, when the search ends early.
const FAILURE_PROBABILITY: f64 = 1e-4;
/// Maximum number of fits to the inliers of a sample.
const MAX_FITS: usize = 10;

/// Finds the transform with the most matches within `tolerance`, across and down, in pixels of the
/// second image. Returns `None` if fewer than [`MIN_INLIERS`] agree, or for [`Geometry::None`].
pub fn estimate(pairs: &[Pair], geometry: Geometry, tolerance: Point) -> Option<Transformed> {
    let sample_size = match geometry {
        Geometry::None => return None,
        Geometry::Similarity => 2,
        Geometry::Homography => 4,
    };
    if pairs.len() < MIN_INLIERS {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(0);
    let mut best: Option<Candidate> = None;
    let mut samples = MAX_SAMPLES;
    let mut drawn = 0;
    while drawn < samples {
        drawn += 1;
        let chosen = random.choose_multiple(pairs.iter().copied(), sample_size);
        let Some(candidate) = fit(geometry, &chosen)
            .map(|transform| Candidate::new(transform, pairs, tolerance))
            .filter(|candidate| candidate.is_better_than(best.as_ref()))
        else {
            continue;
        };
        let candidate = candidate.improved(geometry, pairs, tolerance);
        let share = candidate.count() as f64 / pairs.len() as f64;
        samples = samples_needed(share, sample_size as i32).min(samples);
        best = Some(candidate);
    }
    let best = best.filter(|best| best.count() >= MIN_INLIERS)?;
    Some(Transformed {
        transform: best.transform,
        inliers: best.inliers,
    })
}

/// Returns the number of samples of which at least one has no outlier, but for
/// [`FAILURE_PROBABILITY`].
fn samples_needed(inliers: f64, sample_size: i32) -> usize {
    let all_inliers = inliers.powi(sample_size);
    if all_inliers >= 1.0 {
        return 1;
    }
    // Zero inliers need infinitely many, which `as` turns into the largest number.
    (FAILURE_PROBABILITY.ln() / -(-all_inliers).ln_1p().abs()).ceil() as usize
}

struct Candidate {
    transform: Transform,
    inliers: Vec<bool>,
    /// Sum of the squared errors in units of the tolerance, each at most 1.
    cost: f64,
}

impl Candidate {
    fn new(transform: Transform, pairs: &[Pair], tolerance: Point) -> Self {
        let mut cost = 0.0;
        let mut inliers = Vec::with_capacity(pairs.len());
        for &(a, b) in pairs {
            let error = squared_error(&transform, a, b, tolerance);
            inliers.push(error <= 1.0);
            cost += error.min(1.0);
        }
        Self {
            transform,
            inliers,
            cost,
        }
    }

    fn count(&self) -> usize {
        self.inliers.iter().filter(|&&inlier| inlier).count()
    }

    fn is_better_than(&self, best: Option<&Self>) -> bool {
        best.is_none_or(|best| self.cost < best.cost)
    }

    /// Fits the transform to its inliers as long as that makes it better.
    fn improved(mut self, geometry: Geometry, pairs: &[Pair], tolerance: Point) -> Self {
        for _ in 0..MAX_FITS {
            let inliers = pairs.iter().zip(&self.inliers);
            let inliers = inliers.filter(|(_, inlier)| **inlier);
            let inliers: Vec<Pair> = inliers.map(|(&pair, _)| pair).collect();
            let Some(fitted) = fit(geometry, &inliers) else {
                break;
            };
            let fitted = Self::new(fitted, pairs, tolerance);
            if fitted.cost >= self.cost {
                break;
            }
            self = fitted;
        }
        self
    }
}

/// Applies a transform; `None` for points at or beyond the horizon.
pub(super) fn apply(transform: &Transform, [x, y]: Point) -> Option<Point> {
    let [px, py, w] = transform.map(|[a, b, c]| a * x + b * y + c);
    (w > 0.0).then(|| [px / w, py / w])
}

fn squared_error(transform: &Transform, a: Point, b: Point, tolerance: Point) -> f64 {
    let Some(mapped) = apply(transform, a) else {
        return f64::INFINITY;
    };
    let across = (mapped[0] - b[0]) / tolerance[0];
    let down = (mapped[1] - b[1]) / tolerance[1];
    across * across + down * down
}

/// Fits a transform to pairs by least squares; `None` if they do not determine one.
fn fit(geometry: Geometry, pairs: &[Pair]) -> Option<Transform> {
    let transform = match geometry {
        Geometry::None => None,
        Geometry::Similarity => fit_similarity(pairs),
        Geometry::Homography => fit_homography(pairs),
    }?;
    let is_finite = transform.iter().flatten().all(|value| value.is_finite());
    is_finite.then_some(transform)
}

/// Fits b = z·a + t over complex numbers.
fn fit_similarity(pairs: &[Pair]) -> Option<Transform> {
    let (center_a, center_b) = centers(pairs);
    let (mut real, mut imaginary, mut size) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        let [ax, ay] = [a[0] - center_a[0], a[1] - center_a[1]];
        let [bx, by] = [b[0] - center_b[0], b[1] - center_b[1]];
        real += ax * bx + ay * by;
        imaginary += ax * by - ay * bx;
        size += ax * ax + ay * ay;
    }
    if size == 0.0 || (real == 0.0 && imaginary == 0.0) {
        return None;
    }
    let (re, im) = (real / size, imaginary / size);
    let [x, y] = center_a;
    Some([
        [re, -im, center_b[0] - re * x + im * y],
        [im, re, center_b[1] - im * x - re * y],
        [0.0, 0.0, 1.0],
    ])
}

/// Fits a homography whose last entry is 1 in normalized coordinates, in which the centers of the
/// points are the origins. It does not move the center of the first image to infinity.
fn fit_homography(pairs: &[Pair]) -> Option<Transform> {
    let (center_a, center_b) = centers(pairs);
    if is_straight(pairs.iter().map(|pair| pair.0), center_a)
        || is_straight(pairs.iter().map(|pair| pair.1), center_b)
    {
        return None;
    }
    let scale_a = spread(pairs.iter().map(|pair| pair.0), center_a)?;
    let scale_b = spread(pairs.iter().map(|pair| pair.1), center_b)?;
    let mut square = Mat::<f64>::zeros(8, 8);
    let mut right = Mat::<f64>::zeros(8, 1);
    for (a, b) in pairs {
        let [x, y] = [
            (a[0] - center_a[0]) * scale_a,
            (a[1] - center_a[1]) * scale_a,
        ];
        let [u, v] = [
            (b[0] - center_b[0]) * scale_b,
            (b[1] - center_b[1]) * scale_b,
        ];
        for (row, value) in [
            ([x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y], u),
            ([0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y], v),
        ] {
            for i in 0..8 {
                for j in 0..8 {
                    square[(i, j)] += row[i] * row[j];
                }
                right[(i, 0)] += row[i] * value;
            }
        }
    }
    let h = square.partial_piv_lu().solve(&right);
    let normalized = [
        [h[(0, 0)], h[(1, 0)], h[(2, 0)]],
        [h[(3, 0)], h[(4, 0)], h[(5, 0)]],
        [h[(6, 0)], h[(7, 0)], 1.0],
    ];
    let into_normalized = [
        [scale_a, 0.0, -scale_a * center_a[0]],
        [0.0, scale_a, -scale_a * center_a[1]],
        [0.0, 0.0, 1.0],
    ];
    let from_normalized = [
        [1.0 / scale_b, 0.0, center_b[0]],
        [0.0, 1.0 / scale_b, center_b[1]],
        [0.0, 0.0, 1.0],
    ];
    let transform = product(&from_normalized, &product(&normalized, &into_normalized));
    // The sign stays, so that points in front of the horizon have a positive last coordinate.
    let last = transform[2][2].abs();
    let scale = if last > 0.0 { last } else { 1.0 };
    Some(transform.map(|row| row.map(|value| value / scale)))
}

fn product(a: &Transform, b: &Transform) -> Transform {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

fn centers(pairs: &[Pair]) -> (Point, Point) {
    let (mut a, mut b) = ([0.0; 2], [0.0; 2]);
    for pair in pairs {
        for axis in 0..2 {
            a[axis] += pair.0[axis] / pairs.len() as f64;
            b[axis] += pair.1[axis] / pairs.len() as f64;
        }
    }
    (a, b)
}

/// Returns whether points lie on one line, which leaves a homography undetermined.
fn is_straight(points: impl Iterator<Item = Point>, center: Point) -> bool {
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for point in points {
        let [x, y] = [point[0] - center[0], point[1] - center[1]];
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    // The product of the variances along the principal axes, and their sum.
    let (product, sum) = (xx * yy - xy * xy, xx + yy);
    product <= 1e-6 * sum * sum
}

/// Returns the factor that brings the mean distance from the center to √2; `None` if all points are
/// one.
fn spread(points: impl ExactSizeIterator<Item = Point>, center: Point) -> Option<f64> {
    let count = points.len() as f64;
    let total: f64 = points
        .map(|point| (point[0] - center[0]).hypot(point[1] - center[1]))
        .sum();
    (total > 0.0).then(|| count * std::f64::consts::SQRT_2 / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Point = [14.0, 14.0];

    /// Points all over an image of 500×400, transformed, and as many that match at random.
    fn pairs(transform: &Transform, count: usize) -> Vec<Pair> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut point = || [random.f64() * 500.0, random.f64() * 400.0];
        let mut pairs = Vec::new();
        for _ in 0..count {
            let a = point();
            pairs.push((a, apply(transform, a).expect("in front of the horizon")));
            pairs.push((point(), point()));
        }
        pairs
    }

    fn assert_finds(transform: Transform, geometry: Geometry) {
        let pairs = pairs(&transform, 60);
        let found = estimate(&pairs, geometry, TOLERANCE).expect("most agree");
        for (&(a, b), (index, &inlier)) in pairs.iter().zip(found.inliers.iter().enumerate()) {
            if index % 2 == 0 {
                assert!(inlier, "{geometry} {index}");
                let mapped = apply(&found.transform, a).expect("in front of the horizon");
                let error = (mapped[0] - b[0]).hypot(mapped[1] - b[1]);
                assert!(error < 3.0, "{geometry} {index}: {error}");
            }
        }
        // A random point is seldom within the tolerance.
        let inliers = found.inliers.iter().filter(|&&inlier| inlier).count();
        assert!((60..66).contains(&inliers), "{inliers}");
        assert_eq!(estimate(&pairs, geometry, TOLERANCE), Some(found));
    }

    #[test]
    fn a_similarity_is_found_among_outliers() {
        let (sin, cos) = (0.5_f64).sin_cos();
        let transform = [
            [0.8 * cos, -0.8 * sin, 120.0],
            [0.8 * sin, 0.8 * cos, -30.0],
            [0.0, 0.0, 1.0],
        ];
        assert_finds(transform, Geometry::Similarity);
        assert_finds(transform, Geometry::Homography);
    }

    #[test]
    fn a_homography_is_found_among_outliers() {
        let transform = [[1.1, 0.1, 20.0], [-0.05, 0.9, 10.0], [3e-4, -2e-4, 1.0]];
        assert_finds(transform, Geometry::Homography);
        // The origin lies beyond the horizon, and all points in front of it.
        let pairs: Vec<Pair> = (0..60)
            .map(|i| {
                let a = [f64::from(i % 10) * 50.0, 150.0 + f64::from(i / 10) * 50.0];
                let w = 0.01 * a[1] - 1.0;
                (a, [a[0] / w, a[1] / w])
            })
            .collect();
        let found = estimate(&pairs, Geometry::Homography, TOLERANCE).expect("all agree");
        assert!(found.inliers.iter().all(|&inlier| inlier));
    }

    #[test]
    fn more_outliers_need_more_samples() {
        assert_eq!(samples_needed(1.0, 4), 1);
        assert_eq!(samples_needed(0.5, 2), 33);
        assert_eq!(samples_needed(0.0, 4), usize::MAX);
    }

    #[test]
    fn chance_is_not_a_transform() {
        let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let random: Vec<Pair> = pairs(&identity, 40)
            .into_iter()
            .skip(1)
            .step_by(2)
            .collect();
        for geometry in [Geometry::Similarity, Geometry::Homography] {
            assert_eq!(estimate(&random, geometry, [7.0, 7.0]), None, "{geometry}");
            assert_eq!(estimate(&[], geometry, TOLERANCE), None);
            let one_point = [([5.0, 5.0], [9.0, 9.0]); 20];
            assert_eq!(estimate(&one_point, geometry, TOLERANCE), None);
        }
        let straight: Vec<Pair> = (0..20)
            .map(|i| ([f64::from(i), 0.0], [f64::from(i), 0.0]))
            .collect();
        assert!(estimate(&straight, Geometry::Similarity, TOLERANCE).is_some());
        assert_eq!(estimate(&straight, Geometry::Homography, TOLERANCE), None);
    }
}
