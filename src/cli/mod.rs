//! The command line. Each command is a file; what they share about models and the runtime is in
//! [`common`].

mod bench;
mod common;
mod completions;
mod config;
mod doctor;
mod embed;
mod eval;
mod gallery;
mod goldens;
mod health;
mod http_flags;
mod keys;
mod models;
mod openapi;
mod progress;
mod serve;
mod settings;
mod vectors;

use std::{path::PathBuf, process::ExitCode};

use clap::{
    ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use self::settings::Settings;
use crate::{
    artifacts,
    telemetry::{self, LogFormat, TraceExport},
};

const AFTER_HELP: &str = "\
Settings come from dinoserve.toml, from environment variables and from flags; each overrules those before it. \
`dinoserve config` shows them.

Exit codes: 0 all went well; 1 something failed, or a check found something; 2 the command line or the settings are wrong; \
130 stopped by Ctrl-C.";

/// DINOv2 image features: embeddings, PCA maps and attention maps, over HTTP or over a folder.
#[derive(Debug, Parser)]
#[command(name = "dinoserve", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// File with settings: flags of `serve` without their dashes, such as `port = 8080` [default:
    /// dinoserve.toml, if there is one]
    #[arg(long, global = true, env = "DINOSERVE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// What is logged, in tracing's syntax, such as `info` or `dinoserve=debug,warn`
    #[arg(long, global = true, env = "DINOSERVE_LOG", default_value = "info")]
    log: String,

    /// Form of the log on standard error
    #[arg(
        long,
        global = true,
        env = "DINOSERVE_LOG_FORMAT",
        default_value = "pretty"
    )]
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
    /// Check that `serve` would work here, and say what to do if not
    Doctor(doctor::Doctor),
    /// Ask a server on this machine whether it is ready
    Health(health::Health),
    /// Make API keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Print the settings in force, and where each comes from
    Config(config::Config),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

/// Runs the program with the arguments of the process and gives its exit code: 0 when all went
/// well, 1 when something failed, 2 when the command line or the settings are wrong.
pub fn main() -> ExitCode {
    let (program, settings) = match program() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    };
    let matches = match program.clone().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            if let (Some(settings), Some(ContextValue::String(value))) =
                (&settings, error.get(ContextKind::InvalidValue))
                && settings.has_value(value)
            {
                eprintln!("\nThe value is in {}.", settings.path().display());
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // Sends the last spans when it is dropped, at the end.
    let _tracing = match telemetry::start(
        cli.log_format,
        &cli.log,
        cli.command.trace_export().as_ref(),
    ) {
        Ok(tracing) => tracing,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if !cli.command.stops_itself() {
        stop_on_ctrl_c();
    }
    match cli.run(&matches, program, settings.as_ref()) {
        Ok(code) => code,
        Err(error) => {
            // The reader of our output has gone, as in `… | head`: that is no failure of ours.
            let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
                cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
            };
            if !error.chain().any(broken_pipe) {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The command line, with the defaults of the file with settings if there is one.
fn program() -> anyhow::Result<(clap::Command, Option<Settings>)> {
    let program = Cli::command();
    let settings = Settings::find(std::env::args_os().skip(1))?;
    let program = match &settings {
        Some(settings) => settings.apply(program)?,
        None => program,
    };
    Ok((program, settings))
}

impl Command {
    /// Where its spans go.
    fn trace_export(&self) -> Option<TraceExport> {
        match self {
            Self::Serve(serve) => serve.trace_export(),
            _ => None,
        }
    }

    /// Whether it hears Ctrl-C by itself, and ends what it has begun.
    fn stops_itself(&self) -> bool {
        matches!(
            self,
            Self::Serve(_) | Self::Gallery(gallery::Gallery::Import(_))
        )
    }
}

/// Ends at once, and leaves nothing half-written.
fn stop_on_ctrl_c() {
    let stopped = ctrlc::set_handler(|| {
        artifacts::remove_unfinished();
        std::process::exit(130);
    });
    if let Err(error) = stopped {
        tracing::debug!(%error, "no handler for Ctrl-C");
    }
}

impl Cli {
    fn run(
        self,
        matches: &ArgMatches,
        program: clap::Command,
        settings: Option<&Settings>,
    ) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(command) => command.run(),
            Command::Models(command) => command.run(),
            Command::Embed(command) => command.run(),
            Command::Gallery(command) => command.run(),
            Command::Eval(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Openapi => openapi::run(),
            Command::Doctor(command) => command.run(),
            Command::Health(command) => command.run(),
            Command::Keys(command) => command.run(),
            Command::Config(command) => {
                let of_command = matches.subcommand().map_or(matches, |(_, matches)| matches);
                command.run(of_command, &program, settings)
            }
            Command::Completions(command) => Ok(command.run(program)),
        }
    }
}
