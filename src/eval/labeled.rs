//! Labeled images as vectors.

use std::collections::BTreeSet;

use ndarray::Array2;

/// Labeled images as vectors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LabeledVectors {
    /// Ids of the images.
    pub ids: Vec<String>,
    /// Label of each image.
    pub labels: Vec<String>,
    /// `[images, dim]`.
    pub vectors: Array2<f32>,
}

impl LabeledVectors {
    /// Returns each image's index in `classes`, which hold all labels, sorted.
    pub fn indices(&self, classes: &[String]) -> Vec<usize> {
        self.labels
            .iter()
            .map(|label| classes.partition_point(|class| class < label))
            .collect()
    }

    /// Returns the labels of `other` that these images do not have, sorted.
    pub fn missing_labels(&self, other: &Self) -> Vec<String> {
        let known: BTreeSet<&String> = self.labels.iter().collect();
        let labels: BTreeSet<&String> = other.labels.iter().collect();
        labels.difference(&known).copied().cloned().collect()
    }
}

/// Returns all labels of several datasets, sorted.
pub fn classes(datasets: &[&LabeledVectors]) -> Vec<String> {
    let labels = datasets.iter().flat_map(|dataset| &dataset.labels);
    BTreeSet::from_iter(labels).into_iter().cloned().collect()
}
