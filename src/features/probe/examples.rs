//! Training data of a probe: features with labels.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};

/// Features of some images, each with the label of its class.
#[derive(Debug, Clone)]
pub struct Examples {
    width: usize,
    max_classes: usize,
    /// Features, `[width]` each, in the vectors in which they were added, which are never copied.
    rows: Vec<Vec<f32>>,
    /// Class number of each row.
    class_numbers: Vec<usize>,
    /// Group of each row; rows of group 0 are on their own.
    groups: Vec<usize>,
    /// Number of groups.
    group_count: usize,
    /// Number of each label, in the order in which the labels were added.
    numbers: BTreeMap<String, usize>,
}

impl Examples {
    /// Returns an empty set for features of width `width`, of at most `max_classes` classes.
    pub fn new(width: usize, max_classes: usize) -> Self {
        Self {
            width,
            max_classes,
            rows: Vec::new(),
            class_numbers: Vec::new(),
            groups: Vec::new(),
            group_count: 0,
            numbers: BTreeMap::new(),
        }
    }

    /// Begins a group, such as the patches of an image: what is added from now on is held out
    /// together.
    pub fn begin_group(&mut self) {
        self.group_count += 1;
    }

    /// Adds features `[width]` of the class `label`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for features that have another width or are not finite;
    /// [`Kind::TooLarge`] for too many classes.
    pub fn add(&mut self, features: Vec<f32>, label: &str) -> Result<()> {
        let found = features.len();
        let width = self.width;
        if found != width {
            let detail = format!("the features have width {found}, and others have width {width}");
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        if !features.iter().all(|value| value.is_finite()) {
            let detail =
                format!("features of class `{label}` contain a value that is not a finite number");
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        let next = self.numbers.len();
        let number = match self.numbers.get(label) {
            Some(&number) => number,
            None if next == self.max_classes => {
                let max = self.max_classes;
                let detail = format!("there are more than {max} labels to learn");
                let error = Error::new(Kind::TooLarge, detail);
                let flag = "--max-probe-classes";
                return Err(error.with_limit("max_probe_classes", max as u64, flag));
            }
            None => *self.numbers.entry(label.to_owned()).or_insert(next),
        };
        self.rows.push(features);
        self.class_numbers.push(number);
        self.groups.push(self.group_count);
        Ok(())
    }

    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the width of the features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the labels, sorted: the classes of a probe.
    pub fn classes(&self) -> Vec<String> {
        self.numbers.keys().cloned().collect()
    }

    /// Returns the features of an example.
    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.rows[index]
    }

    /// Returns the class of each example, as an index into [`Examples::classes`].
    pub(super) fn targets(&self) -> Vec<usize> {
        let mut sorted = vec![0; self.numbers.len()];
        for (index, &number) in self.numbers.values().enumerate() {
            sorted[number] = index;
        }
        let numbers = self.class_numbers.iter();
        numbers.map(|&number| sorted[number]).collect()
    }

    /// Returns the group of each example.
    pub(super) fn groups(&self) -> &[usize] {
        &self.groups
    }

    /// Returns the mean of each feature.
    pub(super) fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.width];
        for row in &self.rows {
            for (sum, &value) in mean.iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        let scale = 1.0 / self.rows.len().max(1) as f64;
        mean.iter_mut().for_each(|sum| *sum *= scale);
        mean
    }
}
