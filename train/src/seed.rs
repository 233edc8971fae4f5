//! Random generators whose seeds are derived from the seed of the run.

use rand::{SeedableRng, rngs::ChaCha8Rng};

/// Returns a generator whose seed depends on every bit of `parts`.
pub(crate) fn random(parts: [u64; 3]) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(mix(parts))
}

/// Mixes numbers into one seed (SplitMix64's finalizer after each number).
pub(crate) fn mix(parts: [u64; 3]) -> u64 {
    parts
        .into_iter()
        .fold(0x9e37_79b9_7f4a_7c15, |state: u64, part| {
            let x = state.wrapping_add(part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        })
}
