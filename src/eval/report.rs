//! The predictions of a classifier against the labels: accuracy, confusion matrix, and the
//! precision and recall of each class.

use std::fmt;

use serde::Serialize;

/// Maximum number of classes whose confusion matrix fits a terminal; with more, the most frequent
/// confusions are listed.
const MAX_TABLE_CLASSES: usize = 24;
/// Maximum number of listed confusions.
const MAX_LISTED_CONFUSIONS: usize = 20;

/// The comparison of predictions with labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Share of images that are predicted correctly; 0 without images.
    pub accuracy: f64,
    /// Number of correct predictions.
    pub correct: usize,
    /// Number of images.
    pub count: usize,
    /// Measures of each class, in the order of the classes.
    pub classes: Vec<ClassReport>,
    /// Confusion matrix `[label][prediction]`, in images.
    pub confusion: Vec<Vec<usize>>,
    /// Number of images without a prediction, per label.
    pub unpredicted: Vec<usize>,
}

/// Measures of one class. A share with nothing to count is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// Name of the class.
    pub label: String,
    /// Share of correct ones among the images that were predicted as this class.
    pub precision: Option<f64>,
    /// Share of correct ones among the images of this class.
    pub recall: Option<f64>,
    /// Harmonic mean of both: 2·correct / (images of the class + images predicted as it).
    pub f1: Option<f64>,
    /// Number of images of the class.
    pub count: usize,
}

impl Report {
    /// Compares `truth` with `predicted`; both hold indices of `classes` and have the same length.
    pub fn new(classes: &[String], truth: &[usize], predicted: &[Option<usize>]) -> Self {
        let mut confusion = vec![vec![0; classes.len()]; classes.len()];
        let mut unpredicted = vec![0; classes.len()];
        for (&label, &prediction) in truth.iter().zip(predicted) {
            match prediction {
                Some(prediction) => confusion[label][prediction] += 1,
                None => unpredicted[label] += 1,
            }
        }
        let mut reports = Vec::with_capacity(classes.len());
        let mut correct = 0;
        for (index, label) in classes.iter().enumerate() {
            let hits = confusion[index][index];
            let count = confusion[index].iter().sum::<usize>() + unpredicted[index];
            let predictions: usize = confusion.iter().map(|row| row[index]).sum();
            correct += hits;
            reports.push(ClassReport {
                label: label.clone(),
                precision: share(hits, predictions),
                recall: share(hits, count),
                f1: share(2 * hits, count + predictions),
                count,
            });
        }
        Self {
            accuracy: share(correct, truth.len()).unwrap_or(0.0),
            correct,
            count: truth.len(),
            classes: reports,
            confusion,
            unpredicted,
        }
    }

    /// Returns the number of characters of the longest label.
    fn label_width(&self) -> usize {
        let labels = self.classes.iter().map(|class| &class.label);
        let widths = labels.map(|label| label.chars().count());
        widths.fold("label".len(), usize::max)
    }

    /// Writes a row per label and a column per prediction, numbered as the rows; 0 is a dot.
    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.label_width();
        let classes = self.classes.len();
        let counts = self.confusion.iter().flatten().chain(&self.unpredicted);
        let largest = counts.copied().fold(classes, usize::max);
        let cell = largest.to_string().len() + 2;
        let number = classes.to_string().len();
        let none = self.unpredicted.iter().any(|&count| count > 0);

        writeln!(f, "Taken for (columns are numbered as the labels)")?;
        write!(f, "{:1$}", "", number + 2 + width)?;
        (1..=classes).try_for_each(|column| write!(f, "{column:>cell$}"))?;
        writeln!(f, "{}", if none { "  none" } else { "" })?;
        for (row, class) in self.classes.iter().enumerate() {
            write!(f, "{:>number$}  {:<width$}", row + 1, class.label)?;
            for &count in &self.confusion[row] {
                match count {
                    0 => write!(f, "{:>cell$}", "·")?,
                    _ => write!(f, "{count:>cell$}")?,
                }
            }
            if none {
                write!(f, "{:>6}", self.unpredicted[row])?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_most_confused(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut confusions = Vec::new();
        for (row, counts) in self.confusion.iter().enumerate() {
            for (column, &count) in counts.iter().enumerate() {
                if count > 0 && row != column {
                    confusions.push((count, row, column));
                }
            }
        }
        // Stable: equal counts keep the order of the labels.
        confusions.sort_by_key(|&(count, ..)| std::cmp::Reverse(count));
        let width = self.label_width();
        writeln!(f, "Most often confused")?;
        for (count, row, column) in confusions.into_iter().take(MAX_LISTED_CONFUSIONS) {
            writeln!(
                f,
                "{count:>6} ×  {:<width$} taken for {}",
                self.classes[row].label, self.classes[column].label
            )?;
        }
        Ok(())
    }

    fn write_classes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.label_width();
        let label = "Label";
        writeln!(f, "{label:<width$}  precision %  recall %   F1 %  images")?;
        for class in &self.classes {
            write!(f, "{:<width$}", class.label)?;
            write!(f, "  {:>11}", percent(class.precision))?;
            write!(f, "  {:>8}", percent(class.recall))?;
            writeln!(f, "  {:>5}  {:>6}", percent(class.f1), class.count)?;
        }
        Ok(())
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1}", share * 100.0))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.accuracy * 100.0;
        let Self { correct, count, .. } = self;
        writeln!(f, "Accuracy {percent:.1} % ({correct} of {count})\n")?;
        if self.classes.len() <= MAX_TABLE_CLASSES {
            self.write_table(f)?;
        } else {
            self.write_most_confused(f)?;
        }
        writeln!(f)?;
        self.write_classes(f)
    }
}
