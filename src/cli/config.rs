//! `dinoserve config`: the settings in force, and where each comes from.

use std::io::Write;

use clap::{Arg, ArgMatches, Args, Command, parser::ValueSource};
use serde_json::{Map, Value, json};

use super::{
    config_file::{ConfigFile, settable_flags},
    output::print_json,
    serve::Serve,
};

/// Takes the flags of `serve`, and prints the settings of `serve` as a `dinoserve.toml` or as JSON.
#[derive(Debug, Args)]
pub(super) struct Config {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    serve: Box<Serve>,
}

impl Config {
    /// `matches` are those of this command; `program` is the whole command line.
    pub(super) fn run(
        self,
        matches: &ArgMatches,
        program: &Command,
        config_file: Option<&ConfigFile>,
    ) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let mut object = Map::new();
        for arg in settable_flags(program) {
            let Some(name) = arg.get_long() else { continue };
            let value = matches
                .get_raw(arg.get_id().as_str())
                .and_then(|mut values| values.next())
                .map(|value| json_value(&redact_password(&value.to_string_lossy())));
            let source = source(arg, name, matches, config_file);
            if self.json {
                object.insert(name.to_owned(), json!({"value": value, "source": source}));
                continue;
            }
            let default = documented_default(arg);
            let (setting, remark) = match value {
                Some(value) => (format!("{name} = {value}"), source),
                None => (format!("# {name} ="), format!("not set: {default}")),
            };
            writeln!(out, "{setting:<44} # {remark}")?;
        }
        drop(out);
        if self.json {
            print_json(&object)?;
        }
        Ok(())
    }
}

/// Returns the origin of a flag's value: the flag, the variable, the file or the default.
fn source(arg: &Arg, name: &str, matches: &ArgMatches, config_file: Option<&ConfigFile>) -> String {
    match matches.value_source(arg.get_id().as_str()) {
        Some(ValueSource::CommandLine) => format!("--{name}"),
        Some(ValueSource::EnvVariable) => arg
            .get_env()
            .map(|variable| variable.to_string_lossy().into_owned())
            .unwrap_or_default(),
        _ => match config_file.filter(|file| file.sets(name)) {
            Some(file) => file.path().display().to_string(),
            None => "default".to_owned(),
        },
    }
}

/// Reads a number, a truth value or a text; JSON writes all three as TOML does.
fn json_value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => text.into(),
    }
}

/// Returns the default of a flag from its help.
fn documented_default(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let rest = help.split_once("[default: ").map(|(_, rest)| rest);
    let default = rest.and_then(|rest| rest.split_once(']'));
    default.map_or("none", |(default, _)| default).to_owned()
}

/// Replaces the password of a URL by `***`.
fn redact_password(text: &str) -> String {
    let redacted = text.split_once("://").and_then(|(scheme, rest)| {
        let (credentials, place) = rest.rsplit_once('@')?;
        let (user, _) = credentials.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{place}"))
    });
    redacted.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_redacted_whatever_they_hold() {
        assert_eq!(
            redact_password("postgres://me:a@b:c@db/x"),
            "postgres://me:***@db/x"
        );
        for text in [
            "postgres://me@db/x",
            "postgres://db:5432/x",
            "a:b@c",
            "folder",
        ] {
            assert_eq!(redact_password(text), text);
        }
    }

    #[test]
    fn numbers_and_truth_values_are_not_texts() {
        assert_eq!(json_value("9001"), json!(9001));
        assert_eq!(json_value("true"), json!(true));
        assert_eq!(json_value("0.0.0.0"), json!("0.0.0.0"));
        assert_eq!(json_value("null"), json!("null"));
    }

    #[test]
    fn the_default_in_a_help_text_is_found() {
        let arg = Arg::new("a").help("Number of x [default: by the cores]");
        assert_eq!(documented_default(&arg), "by the cores");
        assert_eq!(documented_default(&Arg::new("b").help("Some flag")), "none");
    }
}
