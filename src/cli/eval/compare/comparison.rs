//! What `eval compare` found: the numbers that it prints and writes.

use std::io::Write;

use serde::Serialize;

use super::classify::{Classifier, ModelResult, Outcome};
use crate::eval::Agreement;

/// What is compared: the content of `--json` and of the page.
#[derive(Serialize)]
pub(super) struct Comparison<'a> {
    pub(super) train: &'a str,
    pub(super) test: &'a str,
    pub(super) train_images: usize,
    pub(super) test_images: usize,
    pub(super) classes: &'a [String],
    pub(super) k: usize,
    pub(super) temperature: f32,
    pub(super) models: &'a [ModelResult],
    pub(super) pairs: Vec<Pair<'a>>,
}

/// Two models compared by one classifier.
#[derive(Serialize)]
pub(super) struct Pair<'a> {
    first: &'a str,
    second: &'a str,
    classifier: Classifier,
    #[serde(flatten)]
    agreement: Agreement,
}

/// Compares all pairs of models by each classifier.
pub(super) fn pairs(models: &[ModelResult]) -> Vec<Pair<'_>> {
    let mut pairs = Vec::new();
    for (index, first) in models.iter().enumerate() {
        for second in &models[index + 1..] {
            for (a, b) in first.outcomes.iter().zip(&second.outcomes) {
                pairs.push(Pair {
                    first: &first.model,
                    second: &second.model,
                    classifier: a.classifier,
                    agreement: Agreement::new(&a.is_right, &b.is_right),
                });
            }
        }
    }
    pairs
}

impl Comparison<'_> {
    pub(super) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let names = self.models.iter().map(|model| model.model.chars().count());
        let width = names.fold("model".len(), usize::max);
        let classifiers: Vec<&Outcome> = self.models[0].outcomes.iter().collect();
        write!(out, "Accuracy %, k = {}\n{:<width$}", self.k, "model")?;
        for outcome in &classifiers {
            write!(out, "  {:>14}", outcome.classifier.to_string())?;
        }
        writeln!(out)?;
        for model in self.models {
            write!(out, "{:<width$}", model.model)?;
            for outcome in &model.outcomes {
                write!(out, "  {:>14.1}", outcome.report.accuracy * 100.0)?;
            }
            writeln!(out)?;
        }
        writeln!(out, "\nDifferences (exact McNemar test)")?;
        for pair in &self.pairs {
            let Agreement {
                only_first,
                only_second,
                p_value,
                ..
            } = pair.agreement;
            let verdict = match p_value {
                p if p < 0.05 => "more than chance",
                _ => "may be chance",
            };
            let (first, second) = (pair.first, pair.second);
            writeln!(
                out,
                "{}: only {first} right {only_first}, only {second} right {only_second}, \
                 p = {p_value:.2e}: {verdict}",
                pair.classifier
            )?;
        }
        writeln!(out)
    }
}
