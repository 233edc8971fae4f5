//! `metrics.jsonl`: a line for each logged step and each measurement.

use std::{fs::File, io::Write, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::files;
use crate::method::StepReport;

/// Metrics of a logged step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Number of steps before this one.
    pub step: usize,
    /// Number of epochs before this step, with fractions.
    pub epoch: f64,
    /// Losses and statistics.
    #[serde(flatten)]
    pub report: StepReport,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Images per second since the previous line.
    pub images_per_second: f64,
    /// Share of that time spent waiting for the loader.
    pub waited: f64,
}

/// A measurement of the k-NN accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnnMetrics {
    /// Number of steps before the measurement.
    pub step: usize,
    /// Number of epochs before the measurement.
    pub epoch: f64,
    /// Share of the images that were classified correctly.
    pub knn: f64,
    /// Accuracy with plain pixels as features; in the first line only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub knn_of_pixels: Option<f64>,
}

/// All metrics of a run so far, and the file that they are appended to.
#[derive(Debug)]
pub struct RunMetrics {
    file: File,
    /// Metrics of the logged steps.
    pub steps: Vec<StepMetrics>,
    /// Measurements of the k-NN accuracy.
    pub knn: Vec<KnnMetrics>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MetricsLine {
    Step(StepMetrics),
    Knn(KnnMetrics),
}

impl RunMetrics {
    /// Opens the file of a run that resumes after `step` steps. It removes the lines of later
    /// steps, which the interrupted run did not save. The file is created if it does not exist.
    pub fn resume(path: &Path, step: usize) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let mut kept = String::new();
        let mut steps = Vec::new();
        let mut knn = Vec::new();
        // A line without a line end is incomplete: the run was interrupted while writing it.
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let parsed: MetricsLine = serde_json::from_str(line)
                .with_context(|| format!("{}: {}", path.display(), line.trim_end()))?;
            match parsed {
                MetricsLine::Step(line) if line.step < step => steps.push(line),
                // The measurement at step 0 is repeated.
                MetricsLine::Knn(line) if line.step <= step && step > 0 => knn.push(line),
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

    /// Appends a logged step.
    pub fn add_step(&mut self, line: StepMetrics) -> anyhow::Result<()> {
        self.write(&line)?;
        self.steps.push(line);
        Ok(())
    }

    /// Appends a measurement.
    pub fn add_knn(&mut self, line: KnnMetrics) -> anyhow::Result<()> {
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
