//! `dinoserve eval linear`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::sets::{SetFlags, Sets};
use crate::{
    cli::progress::{Progress, Unit},
    error::Error,
    eval::{Report, probabilities, train_on},
    features::{
        pool::Pooling,
        probe::{Probe, Stage, TrainingOptions},
        vote,
    },
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Linear {
    /// Strength of the penalty on the weights, C = 1/l2 in scikit-learn's terms [default: the one
    /// of 10⁵, 10⁴, … 10⁻² that does best in cross-validation]
    #[arg(long, value_name = "STRENGTH")]
    l2: Option<f64>,

    /// Parts of the cross-validation; fewer if a label has fewer images
    #[arg(long, value_name = "COUNT", default_value_t = TrainingOptions::default().folds)]
    folds: usize,

    #[command(flatten)]
    sets: SetFlags,
}

/// The whole outcome.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    sets: &'a Sets,
    l2: f64,
    /// Of the images that were learned from, the share that was right while held out.
    cross_validated_accuracy: f64,
    converged: bool,
    #[serde(flatten)]
    report: Report,
    predictions: Vec<Prediction<'a>>,
}

#[derive(Serialize)]
struct Prediction<'a> {
    id: &'a str,
    label: &'a str,
    predicted: &'a str,
    probability: f32,
}

impl Linear {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let options = TrainingOptions {
            l2: self.l2,
            folds: self.folds,
        };
        options.check()?;
        let (train, test) = self.sets.find()?;
        // As the model gives them: the probe finds its own scale.
        let sets = self.sets.embed(train, test, Pooling::ClsMean, false)?;
        let mut out = std::io::stdout();
        sets.print(&mut out)?;
        let probe = learn(&sets, &options)?;
        let Probe {
            l2,
            accuracy,
            converged,
            ..
        } = probe;
        let chosen = if self.l2.is_some() {
            "given"
        } else {
            "chosen by cross-validation"
        };
        writeln!(
            out,
            "Softmax regression, l2 = {l2} (C = {}), {chosen}",
            1.0 / l2
        )?;
        writeln!(
            out,
            "Accuracy on held-out parts of train {:.1} %\n",
            accuracy * 100.0
        )?;
        if !converged {
            writeln!(
                out,
                "The training was cut short: with so small an l2 the weights grow without end."
            )?;
        }

        let shares = probabilities(&probe, &sets.test.vectors)?;
        let predicted: Vec<Option<usize>> =
            shares.iter().map(|shares| vote::winner(shares)).collect();
        let test = &sets.test.vectors;
        let rows = test
            .ids
            .iter()
            .zip(&test.labels)
            .zip(predicted.iter().zip(&shares));
        let predictions = rows.filter_map(|((id, label), (predicted, shares))| {
            let predicted = (*predicted)?;
            Some(Prediction {
                id,
                label,
                predicted: &probe.classes[predicted],
                probability: shares[predicted],
            })
        });
        // The test may have labels that the probe does not know, so its classes have other numbers.
        let number = |class: usize| {
            sets.classes
                .iter()
                .position(|name| *name == probe.classes[class])
        };
        let numbered: Vec<Option<usize>> = predicted
            .iter()
            .map(|class| class.and_then(number))
            .collect();
        let report = Report::new(&sets.classes, &test.indices(&sets.classes), &numbered);
        writeln!(out, "{report}")?;
        let predictions = predictions.collect();
        let outcome = Outcome {
            sets: &sets,
            l2,
            cross_validated_accuracy: accuracy,
            converged,
            report,
            predictions,
        };
        self.sets.write_json(&outcome)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn learn(sets: &Sets, options: &TrainingOptions) -> anyhow::Result<Probe> {
    let mut progress = Progress::new(Unit::Steps);
    let probe = train_on(&sets.train.vectors, options, &mut |at| {
        let step = if at.stage == Stage::Validating {
            "cross-validating"
        } else {
            "fitting"
        };
        progress.show(step, at.done as u64, at.total.map(|total| total as u64));
        true
    });
    progress.finish();
    Ok(probe?.ok_or_else(|| Error::internal("nobody stopped the training"))?)
}
