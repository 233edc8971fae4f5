//! `dinoserve eval compare`: which of several models has the better features, and whether the
//! difference is more than chance.

mod classify;
mod comparison;
mod examples;
mod page;

use std::{collections::BTreeSet, io::Write, path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use self::{
    classify::evaluate,
    comparison::{Comparison, pairs},
    examples::Example,
};
use super::datasets::{Datasets, FolderFlags, LabeledSource, embed_both};
use crate::{
    cli::{flags::RunFlags, output::write_file},
    features::{pool::Pooling, vote::TEMPERATURE},
    names::{plural, repeated},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Compare {
    /// Names of the models, separated by commas; `dinoserve models list` shows all
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    models: Vec<String>,

    /// Number of neighbors that vote
    #[arg(short, value_name = "COUNT", default_value_t = 20)]
    k: usize,

    /// Temperature of the weighted vote
    #[arg(long, default_value_t = TEMPERATURE)]
    temperature: f32,

    /// Also train a linear probe on the features of each model
    #[arg(long)]
    linear: bool,

    /// File for the report: one HTML page with confusion tables, pictures and maps
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Number of pictures in the report that only one model of a pair gets right
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    examples: usize,

    #[command(flatten)]
    folders: FolderFlags,

    #[command(flatten)]
    run: RunFlags,
}

impl Compare {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (train, test) = self.folders.find()?;
        self.check(&train)?;
        let mut models = Vec::with_capacity(self.models.len());
        let mut datasets: Option<Datasets> = None;
        let mut out = std::io::stdout();
        for name in &self.models {
            // The features of a probe begin with CLS, so images go through the model once.
            let (pooling, normalize) = match self.linear {
                true => (Pooling::ClsMean, false),
                false => (Pooling::Cls, true),
            };
            let folders = (train.clone(), test.clone());
            let embedded = embed_both(&self.run, name, folders, pooling, normalize)?;
            if let Some(first) = &datasets {
                check_same_images(first, &embedded)?;
            } else {
                embedded.print(&mut out)?;
            }
            let (k, temperature) = (self.k, self.temperature);
            models.push(evaluate(&embedded, k, temperature, self.linear)?);
            datasets = Some(embedded);
        }
        let Some(datasets) = datasets else {
            bail!("--models: nothing to compare");
        };
        let comparison = Comparison {
            train: &datasets.train.folder,
            test: &datasets.test.folder,
            train_images: datasets.train.vectors.ids.len(),
            test_images: datasets.test.vectors.ids.len(),
            classes: &datasets.classes,
            k: self.k,
            temperature: self.temperature,
            models: &models,
            pairs: pairs(&models),
        };
        comparison.print(&mut out)?;
        self.folders.write_json(&comparison)?;
        if let Some(path) = &self.output {
            let examples = Example::choose(&models, self.examples);
            let page = page::render(&self.run, &comparison, &datasets, &examples)?;
            write_file(path, |writer| writer.write_all(page.as_bytes()))?;
            writeln!(out, "The report is {}", path.display())?;
        }
        Ok(datasets.exit_code())
    }

    /// Checks what would only fail after the images are embedded, which takes long.
    fn check(&self, train: &LabeledSource) -> anyhow::Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            bail!(
                "--temperature {} is out of range; it must be above 0, such as {TEMPERATURE}",
                self.temperature
            );
        }
        let count = train.images.len();
        if self.k == 0 || self.k > count {
            let images = plural(count, "image");
            bail!("-k: with {images} to learn from, k must be 1 to {count}");
        }
        if self.run.vector.has_pooling() {
            bail!(
                "--pooling and --layers: k-NN compares CLS, and probes take CLS and the mean; \
                 leave them out"
            );
        }
        if let Some(twice) = repeated(&self.models) {
            bail!("--models: {twice} is given twice");
        }
        if self.models.len() < 2 {
            bail!("--models: one model cannot be compared; use `dinoserve eval knn`");
        }
        let store = self.run.store()?;
        for name in &self.models {
            store.catalog().get(name)?;
        }
        Ok(())
    }
}

/// Checks that both models could use the same images.
fn check_same_images(first: &Datasets, second: &Datasets) -> anyhow::Result<()> {
    for (set, other) in [(&first.train, &second.train), (&first.test, &second.test)] {
        let ids = BTreeSet::from_iter(&set.vectors.ids);
        let others = BTreeSet::from_iter(&other.vectors.ids);
        if let Some(id) = ids.symmetric_difference(&others).next() {
            let (first, second) = (&first.model, &second.model);
            bail!("{first} and {second} cannot be compared: only one of them can use {id}");
        }
    }
    Ok(())
}
