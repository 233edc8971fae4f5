//! `dinoserve eval knn`.

use std::{io::Write, process::ExitCode};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::datasets::{DatasetFlags, Datasets, Prediction};
use crate::{
    cli::flags::names,
    eval::{Neighbor, Report, nearest, predict},
    features::{
        pool::Pooling,
        vote::{TEMPERATURE, Vote},
    },
    names::plural,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Knn {
    /// Number of neighbors that vote; several numbers are evaluated in one run: `-k 10,20,100`
    #[arg(short, value_name = "COUNT", default_value = "20")]
    #[arg(value_delimiter = ',')]
    k: Vec<usize>,

    /// Vote: `weighted` by exp(score / temperature), or by `majority`; may be given twice
    #[arg(long, default_value = "weighted", value_delimiter = ',', value_parser = names::<Vote>())]
    vote: Vec<Vote>,

    /// Temperature of the weighted vote
    #[arg(long, default_value_t = TEMPERATURE)]
    temperature: f32,

    #[command(flatten)]
    datasets: DatasetFlags,
}

/// The file of `--json`.
#[derive(Serialize)]
struct KnnReport<'a> {
    #[serde(flatten)]
    datasets: &'a Datasets,
    temperature: f32,
    runs: Vec<KnnRun<'a>>,
    neighbors: Vec<ImageNeighbors<'a>>,
}

/// The result for one k and vote.
#[derive(Serialize)]
struct KnnRun<'a> {
    k: usize,
    vote: Vote,
    #[serde(flatten)]
    report: Report,
    predictions: Vec<Prediction<'a>>,
}

/// The nearest training images of a test image by falling score, as many as the largest k.
#[derive(Serialize)]
struct ImageNeighbors<'a> {
    id: &'a str,
    neighbors: Vec<NamedNeighbor<'a>>,
}

#[derive(Serialize)]
struct NamedNeighbor<'a> {
    id: &'a str,
    label: &'a str,
    score: f32,
}

impl Knn {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            bail!(
                "--temperature {} is out of range; it must be above 0, such as {TEMPERATURE}",
                self.temperature
            );
        }
        let folders = self.datasets.folders.find()?;
        // Checked before the images are embedded, which takes long.
        let count = folders.0.images.len();
        let max_k = self.k.iter().copied().max().unwrap_or_default();
        if self.k.contains(&0) || max_k > count {
            let images = plural(count, "image");
            bail!("-k: with {images} to learn from, k must be 1 to {count}");
        }
        // Vectors have length 1, so that their dot product is the cosine.
        let datasets = self.datasets.embed(folders, Pooling::Cls, true)?;
        let mut out = std::io::stdout();
        datasets.print(&mut out)?;
        let train = &datasets.train.vectors;
        let test = &datasets.test.vectors;
        let neighbors = nearest(train.vectors.view(), test.vectors.view(), max_k)?;
        let mut runs = Vec::new();
        for &k in &self.k {
            for &vote in &self.vote {
                runs.push(self.vote(&datasets, &neighbors, k, vote));
            }
        }
        self.print(&mut out, &runs)?;
        let images = test.ids.iter().zip(&neighbors);
        let neighbors = images
            .map(|(id, neighbors)| ImageNeighbors::new(&datasets, id, neighbors))
            .collect();
        self.datasets.folders.write_json(&KnnReport {
            datasets: &datasets,
            temperature: self.temperature,
            runs,
            neighbors,
        })?;
        Ok(datasets.exit_code())
    }

    fn vote<'a>(
        &self,
        datasets: &'a Datasets,
        neighbors: &[Vec<Neighbor>],
        k: usize,
        vote: Vote,
    ) -> KnnRun<'a> {
        let classes = &datasets.classes;
        let labels = datasets.train.vectors.indices(classes);
        let predicted: Vec<Option<usize>> = neighbors
            .iter()
            .map(|near| predict(near, k, &labels, classes.len(), vote, self.temperature))
            .collect();
        let test = &datasets.test.vectors;
        let images = test.ids.iter().zip(&test.labels);
        let predictions = images
            .zip(&predicted)
            .map(|((id, label), predicted)| Prediction {
                id,
                label,
                predicted: predicted.map(|class| classes[class].as_str()),
                probability: None,
            })
            .collect();
        KnnRun {
            k,
            vote,
            report: Report::new(classes, &test.indices(classes), &predicted),
            predictions,
        }
    }

    fn print(&self, out: &mut impl Write, runs: &[KnnRun<'_>]) -> anyhow::Result<()> {
        for run in runs {
            let temperature = match run.vote {
                Vote::Weighted => format!(" (T = {})", self.temperature),
                Vote::Majority => String::new(),
            };
            let KnnRun { k, vote, .. } = run;
            writeln!(out, "k = {k}, {vote} vote{temperature}\n{}", run.report)?;
        }
        if runs.len() > 1 {
            writeln!(out, "{:>5}  {:<8}  accuracy %", "k", "vote")?;
            for run in runs {
                writeln!(
                    out,
                    "{:>5}  {:<8}  {:>10.1}",
                    run.k,
                    run.vote.to_string(),
                    run.report.accuracy * 100.0
                )?;
            }
        }
        Ok(())
    }
}

impl<'a> ImageNeighbors<'a> {
    fn new(datasets: &'a Datasets, id: &'a str, neighbors: &[Neighbor]) -> Self {
        let train = &datasets.train.vectors;
        let neighbors = neighbors
            .iter()
            .map(|&Neighbor { index, score }| NamedNeighbor {
                id: &train.ids[index],
                label: &train.labels[index],
                score,
            })
            .collect();
        Self { id, neighbors }
    }
}
