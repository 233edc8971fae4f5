//! `dinoserve eval knn`.

use std::{io::Write, process::ExitCode};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::sets::{SetFlags, Sets};
use crate::{
    cli::common::names,
    eval::{Neighbor, Report, nearest, predict},
    features::{
        pool::Pooling,
        vote::{TEMPERATURE, Vote},
    },
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Knn {
    /// How many neighbors vote; several counts are evaluated in one run: `-k 10,20,100`
    #[arg(
        short,
        value_name = "COUNT",
        default_value = "20",
        value_delimiter = ','
    )]
    k: Vec<usize>,

    /// How they vote: `weighted` by exp(score / temperature), or by `majority`; may be given twice
    #[arg(long, default_value = "weighted", value_delimiter = ',', value_parser = names::<Vote>())]
    vote: Vec<Vote>,

    /// Temperature of the weighted vote
    #[arg(long, default_value_t = TEMPERATURE)]
    temperature: f32,

    #[command(flatten)]
    sets: SetFlags,
}

/// The whole outcome.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    sets: &'a Sets,
    temperature: f32,
    runs: Vec<Run<'a>>,
    /// Per image of the test, the nearest of the other set by falling score, as many as the largest
    /// k.
    neighbors: Vec<Neighbors<'a>>,
}

/// The outcome for one k and vote.
#[derive(Serialize)]
struct Run<'a> {
    k: usize,
    vote: Vote,
    #[serde(flatten)]
    report: Report,
    predictions: Vec<Prediction<'a>>,
}

#[derive(Serialize)]
struct Prediction<'a> {
    id: &'a str,
    label: &'a str,
    predicted: Option<&'a str>,
}

#[derive(Serialize)]
struct Neighbors<'a> {
    id: &'a str,
    neighbors: Vec<Near<'a>>,
}

#[derive(Serialize)]
struct Near<'a> {
    id: &'a str,
    label: &'a str,
    score: f32,
}

impl Knn {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            bail!(
                "--temperature {}: it must be above 0, as {TEMPERATURE}",
                self.temperature
            );
        }
        let (train, test) = self.sets.find()?;
        // Before the model has seen all images, not after.
        let most = train.images.paths.len();
        let largest = self.k.iter().copied().max().unwrap_or_default();
        if self.k.contains(&0) || largest > most {
            bail!("-k: there are {most} images to learn from, so k must be 1 to {most}");
        }
        // Of length 1, so that their product is the cosine.
        let sets = self.sets.embed(train, test, Pooling::Cls, true)?;
        let mut out = std::io::stdout();
        sets.print(&mut out)?;
        let near = nearest(
            sets.train.vectors.vectors.view(),
            sets.test.vectors.vectors.view(),
            largest,
        )?;
        let settings = self
            .k
            .iter()
            .flat_map(|&k| self.vote.iter().map(move |&vote| (k, vote)));
        let runs: Vec<Run<'_>> = settings
            .map(|(k, vote)| self.vote(&sets, &near, k, vote))
            .collect();
        for run in &runs {
            let temperature = if run.vote == Vote::Weighted {
                format!(" (T = {})", self.temperature)
            } else {
                String::new()
            };
            writeln!(
                out,
                "k = {}, {} vote{temperature}\n{}",
                run.k, run.vote, run.report
            )?;
        }
        if let [_, _, ..] = runs.as_slice() {
            writeln!(out, "{:>5}  {:<8}  accuracy %", "k", "vote")?;
            for Run {
                k, vote, report, ..
            } in &runs
            {
                writeln!(
                    out,
                    "{k:>5}  {:<8}  {:>10.1}",
                    vote.to_string(),
                    report.accuracy * 100.0
                )?;
            }
        }
        let neighbors = near
            .iter()
            .zip(&sets.test.vectors.ids)
            .map(|(near, id)| named(&sets, id, near))
            .collect();
        self.sets.write_json(&Outcome {
            sets: &sets,
            temperature: self.temperature,
            runs,
            neighbors,
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn vote<'a>(&self, sets: &'a Sets, near: &[Vec<Neighbor>], k: usize, vote: Vote) -> Run<'a> {
        let (train, test, classes) = (&sets.train.vectors, &sets.test.vectors, &sets.classes);
        let labels = train.indices(classes);
        let predicted: Vec<Option<usize>> = near
            .iter()
            .map(|near| predict(near, k, &labels, classes.len(), vote, self.temperature))
            .collect();
        let predictions =
            test.ids
                .iter()
                .zip(&test.labels)
                .zip(&predicted)
                .map(|((id, label), predicted)| Prediction {
                    id,
                    label,
                    predicted: predicted.map(|class| classes[class].as_str()),
                });
        let predictions = predictions.collect();
        Run {
            k,
            vote,
            report: Report::new(classes, &test.indices(classes), &predicted),
            predictions,
        }
    }
}

fn named<'a>(sets: &'a Sets, id: &'a str, near: &[Neighbor]) -> Neighbors<'a> {
    let train = &sets.train.vectors;
    let neighbors = near.iter().map(|&Neighbor { index, score }| Near {
        id: &train.ids[index],
        label: &train.labels[index],
        score,
    });
    Neighbors {
        id,
        neighbors: neighbors.collect(),
    }
}
