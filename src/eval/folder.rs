//! Labeled images: a folder that has a subfolder for each label.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use ndarray::Array2;

use crate::error::{Error, Kind, Result};

/// The images of a folder, as their subfolders label them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabeledImages {
    /// Where they lie.
    pub paths: Vec<PathBuf>,
    /// Their paths below the folder, with `/` between the parts.
    pub ids: Vec<String>,
    /// The first part of each id.
    pub labels: Vec<String>,
    /// Images that lie in no subfolder.
    pub unlabelled: Vec<String>,
}

impl LabeledImages {
    /// Labels `paths`, the image files below `root`, in their order.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] if none of them lies in a subfolder.
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
                found.unlabelled.push(id);
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
    /// As [`LabeledImages::ids`].
    pub ids: Vec<String>,
    /// As [`LabeledImages::labels`].
    pub labels: Vec<String>,
    /// `[images, dim]`.
    pub vectors: Array2<f32>,
}

impl LabeledVectors {
    /// Each image's index among `classes`, which hold all labels, sorted.
    pub fn indices(&self, classes: &[String]) -> Vec<usize> {
        self.labels
            .iter()
            .map(|label| classes.partition_point(|class| class < label))
            .collect()
    }

    /// The labels that `other` has and these images lack, sorted.
    pub fn lacks(&self, other: &Self) -> Vec<String> {
        let known: BTreeSet<&str> = self.labels.iter().map(String::as_str).collect();
        let wanted: BTreeSet<&str> = other.labels.iter().map(String::as_str).collect();
        wanted
            .difference(&known)
            .map(|&label| label.to_owned())
            .collect()
    }
}

/// All labels of several sets, sorted.
pub fn classes(sets: &[&LabeledVectors]) -> Vec<String> {
    let labels: BTreeSet<&String> = sets.iter().flat_map(|set| &set.labels).collect();
    labels.into_iter().cloned().collect()
}
