//! The command line. Each command is a file; their common flags are in [`flags`].

mod audit;
mod bench;
mod completions;
mod config;
mod config_file;
mod decode;
mod demo;
mod doctor;
mod embed;
mod embed_files;
mod eval;
mod executor;
mod flags;
mod gallery;
mod goldens;
mod health;
mod interrupt;
mod keys;
mod man;
mod models;
mod openapi;
mod output;
mod pace;
mod patches;
mod progress;
mod serve;
mod shards;
mod tune;

use std::{path::PathBuf, process::ExitCode};

use clap::{
    ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use self::config_file::ConfigFile;
use crate::telemetry::{self, LogFormat};

const AFTER_HELP: &str = "\
Settings come from dinoserve.toml, from environment variables and from flags; each overrides those \
before it. `dinoserve config` shows them.

Exit codes: 0 success; 1 a failure, a check that found a problem, or files that could not be used \
although others were; 2 an invalid command line or configuration file; 130 stopped by Ctrl-C. A \
stopped `embed` or `gallery import` keeps what is done, and the same command goes on from there.";

/// Heading of the flags that all commands have.
const GLOBAL: &str = "Configuration and log";

/// DINO image features: embeddings, PCA maps and attention maps, over HTTP or over a folder.
#[derive(Debug, Parser)]
#[command(name = "dinoserve", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Configuration file with flags of `serve` without their dashes, such as `port = 8080`
    /// [default: dinoserve.toml, if it exists]
    #[arg(long, global = true, env = "DINOSERVE_CONFIG", value_name = "FILE")]
    #[arg(help_heading = GLOBAL)]
    config: Option<PathBuf>,

    /// Filter of the log in tracing's syntax, such as `info` or `dinoserve=debug,warn`
    #[arg(long, global = true, env = "DINOSERVE_LOG", default_value = "info")]
    #[arg(help_heading = GLOBAL)]
    log: String,

    /// Format of the log on standard error
    #[arg(long, global = true, env = "DINOSERVE_LOG_FORMAT")]
    #[arg(default_value = "pretty", help_heading = GLOBAL)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draw what the model sees in photographs, and show it on a page
    Demo(demo::Demo),
    /// Serve features over HTTP
    Serve(Box<serve::Serve>),
    /// List, pull, convert and verify models
    #[command(subcommand)]
    Models(models::Models),
    /// Embed images into one file: those of folders, lists, tar and Parquet files, or stores
    Embed(embed::Embed),
    /// Show and join the outputs of the shards of an `embed`
    #[command(subcommand)]
    Shards(shards::Shards),
    /// Match an image with others: places that correspond
    Match(patches::Match),
    /// Find the objects of images, without labels
    Objects(patches::Objects),
    /// Score images by how much they differ from good ones
    Anomaly(patches::Anomaly),
    /// Find the class of each pixel, learned from a few masks
    Segment(patches::Segment),
    /// Fill, read, check and save galleries
    #[command(subcommand)]
    Gallery(gallery::Gallery),
    /// Find near-duplicates, outliers and wrong labels among images
    Audit(audit::Audit),
    /// Measure how well features separate labeled images
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Measure decoding, resizing and inference without HTTP
    Bench(bench::Bench),
    /// Measure which precision, provider and sessions are fastest here, and keep the result
    Tune(tune::Tune),
    /// Print the OpenAPI document
    Openapi,
    /// Write the pixels of the image files whose paths are on standard input
    #[command(hide = true)]
    Decode,
    /// Check whether `serve` would work here, and say what to do if not
    Doctor(doctor::Doctor),
    /// Check whether a server on this machine is ready
    Health(health::Health),
    /// Make API keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Print the settings in force, and where each comes from
    Config(config::Config),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write the manual pages of all commands into a folder
    Man(man::Man),
}

/// Runs the program with the arguments of the process, and returns its exit code; `--help` lists
/// the codes.
pub fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

/// Parses the command line and runs the command. An error is one of the command line or of the
/// configuration file.
fn start() -> anyhow::Result<ExitCode> {
    let program = Cli::command();
    let config_file = ConfigFile::find(std::env::args_os().skip(1))?;
    let program = match &config_file {
        Some(file) => file.apply(program)?,
        None => program,
    };
    let matches = match program.clone().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            if let Some(file) = &config_file
                && let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
                && file.has_value(value)
            {
                eprintln!("\nThe value is in {}.", file.path().display());
            }
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let trace_export = match &cli.command {
        Command::Serve(serve) => serve.trace_export(),
        _ => None,
    };
    // Sends the last spans when it is dropped.
    let _tracing = telemetry::start(cli.log_format, &cli.log, trace_export.as_ref())
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    // The server drains its connections.
    if !matches!(cli.command, Command::Serve(_)) {
        interrupt::handle_signals();
    }
    Ok(cli
        .run(&matches, program, config_file.as_ref())
        .unwrap_or_else(|error| {
            // Silent if the reader has closed the pipe, as in `… | head`.
            if !error.chain().any(is_broken_pipe) {
                eprintln!("error: {}", output::describe(&error));
            }
            ExitCode::FAILURE
        }))
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

impl Cli {
    fn run(
        self,
        matches: &ArgMatches,
        program: clap::Command,
        config_file: Option<&ConfigFile>,
    ) -> anyhow::Result<ExitCode> {
        match self.command {
            // These commands choose their exit code.
            Command::Embed(command) => return command.run(),
            Command::Shards(command) => return command.run(),
            Command::Match(command) => return command.run(),
            Command::Objects(command) => return command.run(),
            Command::Anomaly(command) => return command.run(),
            Command::Segment(command) => return command.run(),
            Command::Gallery(command) => return command.run(),
            Command::Audit(command) => return command.run(),
            Command::Doctor(command) => return command.run(),
            Command::Eval(command) => return command.run(),
            Command::Demo(command) => command.run()?,
            Command::Serve(command) => command.run()?,
            Command::Models(command) => command.run()?,
            Command::Bench(command) => command.run()?,
            Command::Tune(command) => command.run()?,
            Command::Openapi => openapi::run()?,
            Command::Decode => decode::run()?,
            Command::Health(command) => command.run()?,
            Command::Keys(command) => command.run()?,
            Command::Config(command) => {
                let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
                command.run(matches, &program, config_file)?;
            }
            Command::Completions(command) => command.run(program),
            // Without the settings of the configuration file, which may be secret.
            Command::Man(command) => command.run(Cli::command())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
