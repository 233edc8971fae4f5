//! Classification by a linear probe that is trained on labeled images.

use super::LabeledVectors;
use crate::{
    error::Result,
    features::{
        probe::{Examples, Probe, TrainingOptions, train},
        progress::Progress,
    },
};

/// Trains a probe on all of `dataset`. `watch` gets the progress and returns whether to go on;
/// `Ok(None)` means that it stopped the training.
pub fn train_on(
    dataset: &LabeledVectors,
    options: &TrainingOptions,
    watch: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Probe>> {
    // No limit of examples: all vectors are in memory already.
    let mut examples = Examples::new(dataset.vectors.ncols(), usize::MAX);
    for (vector, label) in dataset.vectors.rows().into_iter().zip(&dataset.labels) {
        examples.add(vector.to_vec(), label)?;
    }
    train(&examples, options, watch)
}

/// Returns the probability of each of the probe's classes for each image of a dataset.
pub fn probabilities(probe: &Probe, dataset: &LabeledVectors) -> Result<Vec<Vec<f32>>> {
    dataset
        .vectors
        .rows()
        .into_iter()
        .map(|vector| probe.probabilities(&vector.to_vec()))
        .collect()
}
