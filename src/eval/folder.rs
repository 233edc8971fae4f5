//! Labeled images: a folder with a subfolder for each label.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use ndarray::Array2;

use crate::error::{Error, Kind, Result};

/// The images of a folder, labeled by their subfolders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabeledImages {
    /// Paths of the labeled images.
    pub paths: Vec<PathBuf>,
    /// Paths below the folder, with `/` between the parts.
    pub ids: Vec<String>,
    /// The first part of each id.
    pub labels: Vec<String>,
    /// Ids of images that lie in no subfolder.
    pub unlabeled: Vec<String>,
}

impl LabeledImages {
    /// Labels `paths`, the image files below `root`, in their order.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] if no image lies in a subfolder.
    pub fn new(root: &Path, paths: Vec<PathBuf>) -> Result<Self> {
        let mut found = Self::default();
        for path in paths {
            let below = path.strip_prefix(root).unwrap_or(&path);
            let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
            let id = parts.join("/");
            if let [label, _, ..] = parts.as_slice() {
                found.labels.push(label.clone().into_owned());
                found.ids.push(id);
                found.paths.push(path);
            } else {
                found.unlabeled.push(id);
            }
        }
        if found.paths.is_empty() {
            let detail = format!(
                "{} has no subfolders with images; it needs one for each label",
                root.display()
            );
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        Ok(found)
    }
}

/// Labeled images as vectors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LabeledVectors {
    /// See [`LabeledImages::ids`].
    pub ids: Vec<String>,
    /// See [`LabeledImages::labels`].
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
