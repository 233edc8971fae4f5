//! The score of an image, from the distances of its patches.

/// One of this many patches decides the score of an image.
const SCORED_SHARE: usize = 100;

/// Returns the number of patches that decide the score.
pub(super) fn scored_patches(patches: usize) -> usize {
    patches.div_ceil(SCORED_SHARE)
}

/// Returns the mean of the largest distances.
pub(super) fn score(distances: &[f32]) -> f32 {
    let count = scored_patches(distances.len());
    if count == 0 {
        return 0.0;
    }
    let mut sorted = distances.to_vec();
    sorted.sort_unstable_by(|one, other| other.total_cmp(one));
    let sum: f64 = sorted[..count].iter().map(|&d| f64::from(d)).sum();
    (sum / count as f64) as f32
}
