//! `dinoserve eval …`: how well a model's features separate labeled images. Each evaluation is a
//! file; the flags and the datasets they share are in [`datasets`].

mod compare;
mod datasets;
mod knn;
mod linear;
mod segmentation;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Eval {
    /// Classify by the nearest labeled images
    Knn(knn::Knn),
    /// Train a linear probe and classify by it
    Linear(linear::Linear),
    /// Learn the classes of pixels from masks, and find those of other images
    Segmentation(segmentation::Segmentation),
    /// Compare the features of several models
    Compare(compare::Compare),
}

impl Eval {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Knn(command) => command.run(),
            Self::Linear(command) => command.run(),
            Self::Segmentation(command) => command.run(),
            Self::Compare(command) => command.run(),
        }
    }
}
