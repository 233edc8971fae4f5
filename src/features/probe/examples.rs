//! What a probe learns from: features with labels.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};

/// Features of some images, each with the label of its class.
#[derive(Debug, Clone)]
pub struct Examples {
    width: usize,
    most_classes: usize,
    /// As they came, so that the bulk is never copied: `[width]` each.
    rows: Vec<Vec<f32>>,
    /// The class of each row, numbered in the order in which they came.
    of_row: Vec<usize>,
    numbers: BTreeMap<String, usize>,
}

impl Examples {
    /// None yet, of features that are `width` wide, and of at most `most_classes` classes.
    pub fn new(width: usize, most_classes: usize) -> Self {
        Self {
            width,
            most_classes,
            rows: Vec::new(),
            of_row: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// Adds features `[width]` of the class `label`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for features of another width or ones that are no numbers;
    /// [`Kind::TooLarge`] if there would be too many classes.
    pub fn add(&mut self, features: Vec<f32>, label: &str) -> Result<()> {
        if features.len() != self.width {
            let detail = format!(
                "features of width {} among ones of width {}",
                features.len(),
                self.width
            );
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        if !features.iter().all(|value| value.is_finite()) {
            let detail =
                format!("features of class `{label}` hold a value that is not a finite number");
            return Err(Error::new(Kind::InvalidOption, detail));
        }
        let next = self.numbers.len();
        let number = match self.numbers.get(label) {
            Some(&number) => number,
            None if next == self.most_classes => {
                let most = self.most_classes;
                let error = Error::new(
                    Kind::TooLarge,
                    format!("there are more than {most} labels to learn"),
                );
                return Err(error.with_limit(
                    "max_probe_classes",
                    most as u64,
                    "--max-probe-classes",
                ));
            }
            None => *self.numbers.entry(label.to_owned()).or_insert(next),
        };
        self.rows.push(features);
        self.of_row.push(number);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Width of the features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The labels, sorted: the classes of a probe.
    pub fn classes(&self) -> Vec<String> {
        self.numbers.keys().cloned().collect()
    }

    /// Features of one of them.
    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.rows[index]
    }

    /// The class of each, as an index into [`Examples::classes`].
    pub(super) fn targets(&self) -> Vec<usize> {
        let mut sorted = vec![0; self.numbers.len()];
        self.numbers
            .values()
            .enumerate()
            .for_each(|(index, &number)| sorted[number] = index);
        self.of_row.iter().map(|&number| sorted[number]).collect()
    }

    /// The mean of each feature.
    pub(super) fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.width];
        for row in &self.rows {
            mean.iter_mut()
                .zip(row)
                .for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let scale = 1.0 / self.rows.len().max(1) as f64;
        mean.iter_mut().for_each(|sum| *sum *= scale);
        mean
    }
}
