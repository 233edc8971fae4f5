//! Classification by a linear probe that was trained on labeled images.

use super::LabeledVectors;
use crate::{
    error::Result,
    features::probe::{Examples, Probe, Progress, TrainingOptions, train},
};

/// Trains a probe on all of `set`. `watch` is told how far it is and tells whether to go on;
/// `Ok(None)` if it said no.
///
/// # Errors
/// As [`train`].
pub fn train_on(
    set: &LabeledVectors,
    options: &TrainingOptions,
    watch: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Probe>> {
    // Whoever evaluates has the memory for all of them already.
    let mut examples = Examples::new(set.vectors.ncols(), usize::MAX);
    for (vector, label) in set.vectors.rows().into_iter().zip(&set.labels) {
        examples.add(vector.to_vec(), label)?;
    }
    train(&examples, options, watch)
}

/// The probability of each of the probe's classes for each image of a set.
///
/// # Errors
/// [`crate::error::Kind::InvalidOption`] if the vectors are of another width than those that the
/// probe was trained on.
pub fn probabilities(probe: &Probe, set: &LabeledVectors) -> Result<Vec<Vec<f32>>> {
    set.vectors
        .rows()
        .into_iter()
        .map(|vector| probe.probabilities(&vector.to_vec()))
        .collect()
}
