//! The command line.

mod bench;
mod export;
mod run;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Exit codes: 0 all went well; 1 something failed; 2 the command line is wrong; 130 stopped by a second Ctrl-C.";

/// Teach a DINOv2 backbone from unlabelled images, for dinoserve to serve.
#[derive(Debug, Parser)]
#[command(name = "dinoserve-train", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train on a folder of images, or go on with a run that was stopped
    Run(Box<run::RunCommand>),
    /// Write the teacher of a run for `dinoserve models convert` and `serve`
    Export(export::Export),
    /// Measure steps on images that are made up, for comparisons
    Bench(bench::Bench),
}

/// Where to compute.
#[derive(Debug, Clone, Args)]
struct DeviceFlag {
    /// Where to compute: `cpu`, or `cuda` if the program was built with `--features cuda`
    #[arg(long, env = "DINOSERVE_TRAIN_DEVICE", default_value = "cpu")]
    device: String,
}

/// What is chosen of a configuration.
#[derive(Debug, Clone, Args)]
struct ConfigFlags {
    /// Configuration; what it leaves out has its default [default: that of the run, if there is
    /// one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A key of the configuration, such as `optimiser.learning_rate=1e-3`; may be given several
    /// times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the program with the arguments of the process and gives its exit code.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Bench(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::run::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
