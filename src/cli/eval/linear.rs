//! `dinoserve eval linear`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::datasets::{DatasetFlags, Datasets, Prediction};
use crate::{
    cli::progress::{Progress, Unit},
    error::Error,
    eval::{Report, probabilities, train_on},
    features::{
        pool::Pooling,
        probe::{Probe, TrainingOptions},
        progress::Stage,
        vote,
    },
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Linear {
    /// Strength of the L2 penalty on the weights, C = 1/l2 in scikit-learn's terms [default: the
    /// one of 10⁵, 10⁴, … 10⁻² with the best cross-validated accuracy]
    #[arg(long, value_name = "STRENGTH")]
    l2: Option<f64>,

    /// Number of folds of the cross-validation; fewer if a label has fewer images
    #[arg(long, value_name = "COUNT", default_value_t = TrainingOptions::default().folds)]
    folds: usize,

    #[command(flatten)]
    datasets: DatasetFlags,
}

/// The file of `--json`.
#[derive(Serialize)]
struct LinearReport<'a> {
    #[serde(flatten)]
    datasets: &'a Datasets,
    l2: f64,
    /// Share of the training images that were classified correctly while held out.
    cross_validated_accuracy: f64,
    converged: bool,
    #[serde(flatten)]
    report: Report,
    predictions: Vec<Prediction<'a>>,
}

impl Linear {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let options = TrainingOptions {
            l2: self.l2,
            folds: self.folds,
            ..TrainingOptions::default()
        };
        options.check()?;
        let folders = self.datasets.folders.find()?;
        // Vectors keep their length: the probe finds its own scale.
        let datasets = self.datasets.embed(folders, Pooling::ClsMean, false)?;
        let mut out = std::io::stdout();
        datasets.print(&mut out)?;
        let probe = learn(&datasets, &options)?;
        self.print(&mut out, &probe)?;

        let test = &datasets.test.vectors;
        let probabilities = probabilities(&probe, test)?;
        let mut predictions = Vec::with_capacity(test.ids.len());
        let mut predicted_classes = Vec::with_capacity(test.ids.len());
        for ((id, label), probabilities) in test.ids.iter().zip(&test.labels).zip(&probabilities) {
            let winner = vote::winner(probabilities);
            let class = winner.map(|class| probe.classes[class].as_str());
            if let Some(winner) = winner {
                predictions.push(Prediction {
                    id,
                    label,
                    predicted: class,
                    probability: Some(probabilities[winner]),
                });
            }
            // The test may have labels that the probe lacks, so its classes have other indices.
            predicted_classes
                .push(class.and_then(|class| datasets.classes.iter().position(|c| c == class)));
        }
        let labels = test.indices(&datasets.classes);
        let report = Report::new(&datasets.classes, &labels, &predicted_classes);
        writeln!(out, "{report}")?;
        self.datasets.folders.write_json(&LinearReport {
            datasets: &datasets,
            l2: probe.l2,
            cross_validated_accuracy: probe.accuracy,
            converged: probe.converged,
            report,
            predictions,
        })?;
        Ok(datasets.exit_code())
    }

    fn print(&self, out: &mut impl Write, probe: &Probe) -> std::io::Result<()> {
        let choice = self.l2.map_or("chosen by cross-validation", |_| "given");
        let l2 = probe.l2;
        let c = 1.0 / l2;
        let percent = probe.accuracy * 100.0;
        writeln!(out, "Softmax regression, l2 = {l2} (C = {c}), {choice}")?;
        writeln!(out, "Accuracy on held-out parts of train {percent:.1} %\n")?;
        if !probe.converged {
            writeln!(
                out,
                "The training did not converge: the l2 is so small that the weights grow without \
                 bound."
            )?;
        }
        Ok(())
    }
}

pub(super) fn learn(datasets: &Datasets, options: &TrainingOptions) -> anyhow::Result<Probe> {
    let mut progress = Progress::new(Unit::Items);
    let probe = train_on(&datasets.train.vectors, options, &mut |at| {
        let step = match at.stage {
            Stage::Validating => "cross-validating",
            _ => "fitting",
        };
        progress.show(step, at.done as u64, at.total.map(|total| total as u64));
        true
    })?;
    Ok(probe.ok_or_else(|| Error::internal("the training stopped early"))?)
}
