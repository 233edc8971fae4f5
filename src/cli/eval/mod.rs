//! `dinoserve eval …`: how well a model's features separate labeled images. Each evaluation is a
//! file; the flags and the datasets they share are in [`datasets`].

mod datasets;
mod knn;
mod linear;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Eval {
    /// Classify by the nearest labeled images
    Knn(knn::Knn),
    /// Train a linear probe and classify by it
    Linear(linear::Linear),
}

impl Eval {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Knn(command) => command.run(),
            Self::Linear(command) => command.run(),
        }
    }
}
