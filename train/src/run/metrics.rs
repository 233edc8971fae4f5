//! `metrics.jsonl`: what every logged step and every measurement showed.

use std::{fs::File, io::Write, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::files;
use crate::method::{StepReport, StepSettings};

/// A logged step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Steps that were done before it.
    pub step: usize,
    /// Epochs that were, with fractions.
    pub epoch: f64,
    /// See [`StepReport`].
    pub loss: f64,
    /// See [`StepReport`].
    pub view_loss: f64,
    /// See [`StepReport`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub patch_loss: Option<f64>,
    /// See [`StepReport`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub koleo: Option<f64>,
    /// See [`StepReport`].
    pub teacher_entropy: f64,
    /// See [`StepReport`].
    pub usage_entropy: f64,
    /// See [`StepReport`].
    pub spread: f64,
    /// See [`StepReport`].
    pub gradient: f64,
    /// Of AdamW.
    pub learning_rate: f64,
    /// Images a second since the line before.
    pub images_per_second: f64,
    /// Share of that time in which the trainer waited for images.
    pub waited: f64,
}

/// A measurement of the k-NN accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnnLine {
    /// Steps that were done.
    pub step: usize,
    /// Epochs that were.
    pub epoch: f64,
    /// Share of the images that were right.
    pub knn: f64,
    /// The same of the pixels themselves; in the first line only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub knn_of_pixels: Option<f64>,
}

/// Everything that was measured so far, and the file it is in.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    /// Logged steps.
    pub steps: Vec<StepLine>,
    /// Measurements.
    pub knn: Vec<KnnLine>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Step(StepLine),
    Knn(KnnLine),
}

impl Metrics {
    /// Goes on with a file after `step` steps: what it has of later ones was lost when the run was
    /// broken off, and is taken out. Without a file there is nothing yet.
    ///
    /// # Errors
    /// If the file is damaged or cannot be written.
    pub fn resume(path: &Path, step: usize) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let (mut kept, mut steps, mut knn) = (String::new(), Vec::new(), Vec::new());
        // A line without its end was being written when the run was broken off.
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let parsed: Line = serde_json::from_str(line)
                .with_context(|| format!("{}: {}", path.display(), line.trim_end()))?;
            match parsed {
                Line::Step(line) if line.step < step => steps.push(line),
                // What was measured at step 0 is measured again.
                Line::Knn(line) if line.step <= step && step > 0 => knn.push(line),
                _ => continue,
            }
            kept.push_str(line);
        }
        files::write(path, kept.as_bytes())?;
        let file = File::options()
            .append(true)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file, steps, knn })
    }

    /// Adds a logged step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_step(&mut self, line: StepLine) -> anyhow::Result<()> {
        self.write(&line)?;
        self.steps.push(line);
        Ok(())
    }

    /// Adds a measurement.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_knn(&mut self, line: KnnLine) -> anyhow::Result<()> {
        self.write(&line)?;
        self.knn.push(line);
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line).context("a line of metrics")?;
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .context("writing metrics.jsonl")
    }
}

impl StepLine {
    pub(super) fn new(
        step: usize,
        epoch: f64,
        report: StepReport,
        settings: StepSettings,
        images_per_second: f64,
        waited: f64,
    ) -> Self {
        let StepReport {
            loss,
            view_loss,
            patch_loss,
            koleo,
            teacher_entropy,
            usage_entropy,
            spread,
            gradient,
        } = report;
        Self {
            step,
            epoch,
            loss,
            view_loss,
            patch_loss,
            koleo,
            teacher_entropy,
            usage_entropy,
            spread,
            gradient,
            learning_rate: settings.learning_rate,
            images_per_second,
            waited,
        }
    }
}
