//! Classification by a vote of neighbors.

use crate::names::option_enum;

option_enum! {
    /// Weight of each neighbor's vote.
    #[derive(Default)]
    pub enum Vote {
        /// `exp(score / temperature)`, as in DINO's evaluation (Wu et al., 2018).
        #[default]
        Weighted,
        /// The same for all neighbors.
        Majority,
    }
}

/// Temperature of DINO's evaluation.
pub const TEMPERATURE: f32 = 0.07;

/// Computes the share of the vote of each of `classes` classes; `neighbors` are scores with the
/// index of a class. All shares are 0 without neighbors.
///
/// The answer is the first of the largest shares ([`winner`]), with classes in the order of their
/// names.
pub fn shares(
    neighbors: &[(f32, usize)],
    classes: usize,
    vote: Vote,
    temperature: f32,
) -> Vec<f32> {
    let mut shares = vec![0.0f64; classes];
    // Relative to the best score, so that no temperature overflows.
    let scores = neighbors.iter().map(|(score, _)| *score);
    let best = scores.fold(f32::NEG_INFINITY, f32::max);
    for &(score, class) in neighbors {
        shares[class] += match vote {
            Vote::Weighted => (f64::from(score - best) / f64::from(temperature)).exp(),
            Vote::Majority => 1.0,
        };
    }
    let total: f64 = shares.iter().sum();
    let scale = if total > 0.0 { 1.0 / total } else { 0.0 };
    shares.iter().map(|share| (share * scale) as f32).collect()
}

/// Returns the first class with the largest share.
pub fn winner(shares: &[f32]) -> Option<usize> {
    let best = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    shares.iter().position(|&share| share == best)
}
