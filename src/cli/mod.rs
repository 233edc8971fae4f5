//! The command line. Each command is a file; what they share about models and the runtime is in [`common`].

mod bench;
mod common;
mod embed;
mod eval;
mod folder;
mod gallery;
mod goldens;
mod models;
mod openapi;
mod progress;
mod serve;
mod vectors;

use clap::{Parser, Subcommand};

use crate::telemetry::{self, LogFormat};

/// DINOv2 image features: embeddings, PCA maps and attention maps, over HTTP or over a folder.
#[derive(Debug, Parser)]
#[command(name = "dinoserve", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What is logged, in tracing's syntax, such as `info` or `dinoserve=debug,warn`
    #[arg(long, global = true, env = "DINOSERVE_LOG", default_value = "info")]
    log: String,

    /// Form of the log on standard error
    #[arg(long, global = true, env = "DINOSERVE_LOG_FORMAT", default_value = "pretty")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve features over HTTP
    Serve(serve::Serve),
    /// List, pull, convert and verify models
    #[command(subcommand)]
    Models(models::Models),
    /// Embed every image of a folder into one file
    Embed(embed::Embed),
    /// Fill, read, check and save galleries
    #[command(subcommand)]
    Gallery(gallery::Gallery),
    /// Measure how well features tell the labels of images apart
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Measure the bare session and the way before it, without HTTP
    Bench(bench::Bench),
    /// Print the API's description
    Openapi,
}

/// Runs the program with the arguments of the process and gives its exit code: 0 when all went well, 1 when something
/// failed, 2 when the command line is wrong.
pub fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    telemetry::start_logging(cli.log_format, &cli.log);
    let done = match cli.command {
        Command::Serve(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Embed(command) => command.run(),
        Command::Gallery(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Openapi => openapi::run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // The reader of our output has gone, as in `… | head`: that is no failure of ours.
            let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
                cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
            };
            if !error.chain().any(broken_pipe) {
                eprintln!("error: {error:#}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}
