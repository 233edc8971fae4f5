//! `dinoserve config`: the settings in force, and where each comes from.

use std::{io::Write, process::ExitCode};

use clap::{ArgMatches, Args, Command, parser::ValueSource};
use serde_json::json;

use super::{
    serve::Serve,
    settings::{Settings, settable},
};

/// Takes the flags of `serve`, and prints what `serve` would work with: as a `dinoserve.toml`, or
/// as JSON.
#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(flatten)]
    serve: Box<Serve>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Config {
    /// `matches` are those of this command; `program` is the whole command line.
    pub(super) fn run(
        self,
        matches: &ArgMatches,
        program: &Command,
        settings: Option<&Settings>,
    ) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        let mut object = serde_json::Map::new();
        for arg in settable(program) {
            let (Some(name), id) = (arg.get_long(), arg.get_id().as_str()) else {
                continue;
            };
            let value = matches
                .get_raw(id)
                .and_then(|mut values| values.next())
                .map(|value| value.to_string_lossy());
            let value = value.map(|value| value_of(&without_password(&value)));
            let source = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => format!("--{name}"),
                Some(ValueSource::EnvVariable) => arg
                    .get_env()
                    .map(|variable| variable.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                _ => match settings.filter(|settings| settings.holds(name)) {
                    Some(settings) => settings.path().display().to_string(),
                    None => "default".to_owned(),
                },
            };
            if self.json {
                object.insert(name.to_owned(), json!({"value": value, "source": source}));
                continue;
            }
            match value {
                Some(value) => writeln!(out, "{:<44} # {source}", format!("{name} = {value}"))?,
                None => writeln!(
                    out,
                    "{:<44} # not set: {}",
                    format!("# {name} ="),
                    unset(arg)
                )?,
            }
        }
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&object)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A number, a truth value or a text, all of which JSON writes as TOML does.
fn value_of(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
        _ => text.into(),
    }
}

/// What the help says of a flag's default.
fn unset(arg: &clap::Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = help
        .split_once("[default: ")
        .and_then(|(_, rest)| rest.split_once(']'));
    default.map_or_else(|| "none".to_owned(), |(default, _)| default.to_owned())
}

/// An address without the password that may be in it.
fn without_password(text: &str) -> String {
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let (credentials, place) = rest.rsplit_once('@')?;
        let (user, _) = credentials.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{place}"))
    });
    parts.unwrap_or_else(|| text.to_owned())
}
