//! `dinoserve gallery import|ingest|basis|audit|export|check|list|stats|…`.

mod audit;
mod basis;
mod check;
mod convert;
mod entry;
mod export;
mod fill;
mod import;
mod ingest;
mod items;
mod list;
mod parquet;
mod rename;
mod selection;
mod server;
mod snapshot;
mod stats;
mod upload;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Gallery {
    /// Store the images of a folder or of a list, here or on a server; items that are stored
    /// already are skipped
    Import(Box<import::Import>),
    /// Store images as they arrive in a stream of NATS JetStream
    Ingest(Box<ingest::Ingest>),
    /// Fit a PCA basis on images of any number, for the maps of servers of these galleries
    Basis(Box<basis::FitBasis>),
    /// Find near-duplicates, outliers, labels that are likely wrong, and groups in a gallery
    Audit(audit::Audit),
    /// Write all items and their vectors to files
    Export(export::Export),
    /// Compare everything that is stored with its checksums
    Check(check::Check),
    /// List the galleries with their sizes and models
    List(list::List),
    /// Print the contents of the galleries: items, labels, model, size
    Stats(stats::Stats),
    /// Keep a gallery of a folder in less memory, or in more, from the next start on
    Convert(convert::Convert),
    /// Give a gallery another name
    Rename(rename::Rename),
    /// Save a gallery to one file with checksums, also while the gallery is written to
    Snapshot(snapshot::Snapshot),
    /// Fill a gallery from a snapshot, all of it or nothing
    Restore(snapshot::Restore),
}

impl Gallery {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Import(command) => command.run(),
            Self::Ingest(command) => command.run(),
            Self::Basis(command) => command.run(),
            Self::Audit(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Check(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Stats(command) => command.run(),
            Self::Convert(command) => command.run(),
            Self::Rename(command) => command.run(),
            Self::Snapshot(command) => command.run(),
            Self::Restore(command) => command.run(),
        }
    }
}
