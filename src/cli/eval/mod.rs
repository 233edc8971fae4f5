//! `dinoserve eval …`: how well a model's features tell the labels of images apart. Each evaluation
//! is a file; what they share is in [`sets`].

mod knn;
mod linear;
mod sets;

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
