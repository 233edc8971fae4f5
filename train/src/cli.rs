//! The command line.

mod bench;
mod export;
mod flags;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::log_line;

const AFTER_HELP: &str = "\
Exit codes: 0 success; 1 failure; 2 the command line is wrong; 130 stopped by a second Ctrl-C.";

/// Train a DINOv2 backbone on images, with or without labels, for dinoserve to serve.
#[derive(Debug, Parser)]
#[command(name = "dinoserve-train", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train on a folder of images, or resume a stopped run
    Run(Box<run::RunCommand>),
    /// Write the teacher of a run for `dinoserve models convert` and `serve`
    Export(export::Export),
    /// Measure the time of training steps on random images
    Bench(bench::Bench),
}

/// Runs the program with the arguments of the process, and returns its exit code.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Bench(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log_line(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
