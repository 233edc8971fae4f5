//! What a classifier got right and wrong: accuracy, confusion, and precision and recall of each
//! class.

use std::fmt;

use serde::Serialize;

/// Above this many classes no terminal shows the table; the most frequent confusions are listed
/// instead.
const TABLE_UP_TO: usize = 24;
/// How many of these.
const LISTED: usize = 20;

/// How the predictions for some images compare with their labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Share of the images whose prediction is their label; 0 without images.
    pub accuracy: f64,
    /// How many were right.
    pub correct: usize,
    /// How many there are.
    pub count: usize,
    /// Per class, in the order of the classes.
    pub classes: Vec<ClassReport>,
    /// `[label][prediction]`: how many images of a label were taken for which class.
    pub confusion: Vec<Vec<usize>>,
    /// Per label, how many images got no prediction.
    pub unpredicted: Vec<usize>,
}

/// How one class fared. A share of nothing is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// Its name.
    pub label: String,
    /// Of the images that were taken for it, the share that are of it.
    pub precision: Option<f64>,
    /// Of its images, the share that were taken for it.
    pub recall: Option<f64>,
    /// Harmonic mean of both: 2·right / (its images + images taken for it).
    pub f1: Option<f64>,
    /// Its images.
    pub count: usize,
}

impl Report {
    /// Compares `truth` with `predicted`, which are as long and hold indices of `classes`.
    pub fn new(classes: &[String], truth: &[usize], predicted: &[Option<usize>]) -> Self {
        let mut confusion = vec![vec![0; classes.len()]; classes.len()];
        let mut unpredicted = vec![0; classes.len()];
        for (&label, &prediction) in truth.iter().zip(predicted) {
            match prediction {
                Some(prediction) => confusion[label][prediction] += 1,
                None => unpredicted[label] += 1,
            }
        }
        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        let class = |(index, label): (usize, &String)| {
            let right = confusion[index][index];
            let count = confusion[index].iter().sum::<usize>() + unpredicted[index];
            let taken: usize = confusion.iter().map(|row| row[index]).sum();
            ClassReport {
                label: label.clone(),
                precision: share(right, taken),
                recall: share(right, count),
                f1: share(2 * right, count + taken),
                count,
            }
        };
        let per_class = classes.iter().enumerate().map(class).collect();
        let correct = (0..classes.len())
            .map(|index| confusion[index][index])
            .sum();
        let count = truth.len();
        let accuracy = share(correct, count).unwrap_or(0.0);
        Self {
            accuracy,
            correct,
            count,
            classes: per_class,
            confusion,
            unpredicted,
        }
    }

    /// Width of the longest label on a terminal.
    fn label_width(&self) -> usize {
        self.classes
            .iter()
            .map(|class| class.label.chars().count())
            .max()
            .unwrap_or(0)
            .max("label".len())
    }

    /// A row per label and a column per prediction, which has the row's number; 0 is a dot.
    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, most) = (self.label_width(), self.classes.len());
        let largest = self
            .confusion
            .iter()
            .flatten()
            .chain(&self.unpredicted)
            .max()
            .copied()
            .unwrap_or(0)
            .max(most);
        let cell = largest.to_string().len() + 2;
        let number = most.to_string().len();
        let none = self.unpredicted.iter().any(|&count| count > 0);

        writeln!(f, "Taken for (columns are numbered as the labels)")?;
        write!(f, "{:1$}", "", number + 2 + width)?;
        (1..=most).try_for_each(|column| write!(f, "{column:>cell$}"))?;
        writeln!(f, "{}", if none { "  none" } else { "" })?;
        for (row, class) in self.classes.iter().enumerate() {
            write!(f, "{:>number$}  {:<width$}", row + 1, class.label)?;
            for &count in &self.confusion[row] {
                if count == 0 {
                    write!(f, "{:>cell$}", "·")?;
                } else {
                    write!(f, "{count:>cell$}")?;
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
        let of_row = |row: usize| {
            self.confusion[row]
                .iter()
                .enumerate()
                .map(move |(column, &count)| (count, row, column))
        };
        let mut wrong: Vec<_> = (0..self.classes.len()).flat_map(of_row).collect();
        wrong.retain(|&(count, row, column)| count > 0 && row != column);
        // Stable, so that equals stay in the order of the labels.
        wrong.sort_by_key(|&(count, ..)| std::cmp::Reverse(count));
        let width = self.label_width();
        writeln!(f, "Most often confused")?;
        for (count, row, column) in wrong.into_iter().take(LISTED) {
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
        let percent = |share: Option<f64>| {
            share.map_or("–".to_owned(), |share| format!("{:.1}", share * 100.0))
        };
        writeln!(
            f,
            "{:<width$}  precision %  recall %   F1 %  images",
            "Label"
        )?;
        for ClassReport {
            label,
            precision,
            recall,
            f1,
            count,
        } in &self.classes
        {
            let (precision, recall, f1) = (percent(*precision), percent(*recall), percent(*f1));
            writeln!(
                f,
                "{label:<width$}  {precision:>11}  {recall:>8}  {f1:>5}  {count:>6}"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Accuracy {:.1} % ({} of {})\n",
            self.accuracy * 100.0,
            self.correct,
            self.count
        )?;
        if self.classes.len() <= TABLE_UP_TO {
            self.write_table(f)?;
        } else {
            self.write_most_confused(f)?;
        }
        writeln!(f)?;
        self.write_classes(f)
    }
}
