//! `dinoserve.toml`, whose values environment variables and flags override.
//!
//! The keys are the flags of `dinoserve serve` without their dashes. A value replaces the flag's
//! default in every command with that flag, so clap parses and checks it like a typed one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Arg, Command};

use crate::names::did_you_mean;

/// The file that is read unless another is named.
const DEFAULT_PATH: &str = "dinoserve.toml";

/// The values of a configuration file.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

impl ConfigFile {
    /// Reads the file of `--config` or `DINOSERVE_CONFIG`, else `dinoserve.toml` in the working
    /// directory if it exists.
    pub(super) fn find(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Self>> {
        let named = config_argument(arguments)
            .or_else(|| std::env::var_os("DINOSERVE_CONFIG").filter(|path| !path.is_empty()));
        let path = named.map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from);
        let is_default = path == Path::new(DEFAULT_PATH);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text).map(Some),
            Err(error) if is_default && error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("reading the settings in {}", path.display()))
            }
        }
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let file = path.display();
        let table = text.parse::<toml::Table>();
        let table = table.with_context(|| format!("reading the settings in {file}"))?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => bail!("{file}: `{key}` must be a text, a number, true or false"),
            };
            values.insert(key, value);
        }
        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file sets the flag with this long name.
    pub(super) fn sets(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }

    /// Returns whether any flag gets this value from the file.
    pub(super) fn has_value(&self, value: &str) -> bool {
        self.values.values().any(|own| own == value)
    }

    /// Makes the values the defaults of `command` and its subcommands.
    pub(super) fn apply(&self, command: Command) -> anyhow::Result<Command> {
        // A flag of another command may have the same name and another meaning; flags with the same
        // variable are the same setting.
        let known = settable_flags(&command).filter_map(name_and_variable);
        let known = BTreeMap::from_iter(known);
        if let Some(key) = self.values.keys().find(|key| !known.contains_key(*key)) {
            let file = self.path.display();
            let names = Vec::from_iter(known.keys().map(String::as_str)).join(", ");
            let suggestion = did_you_mean(key, known.keys().map(String::as_str));
            bail!("{file}: unknown setting `{key}`; expected one of {names}{suggestion}");
        }
        Ok(self.replace_defaults(command, &known))
    }

    fn replace_defaults(&self, command: Command, known: &BTreeMap<String, OsString>) -> Command {
        let command = command.mut_args(|arg| {
            let Some((name, variable)) = name_and_variable(&arg) else {
                return arg;
            };
            match self.values.get(&name) {
                Some(value) if known.get(&name) == Some(&variable) => {
                    arg.default_value(value.clone())
                }
                _ => arg,
            }
        });
        command.mut_subcommands(|command| self.replace_defaults(command, known))
    }
}

/// Returns the flags that a file can set: those of `serve` and the global ones.
pub(super) fn settable_flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let serve = command.find_subcommand("serve").into_iter();
    serve
        .flat_map(Command::get_arguments)
        .chain(command.get_arguments())
        .filter(|arg| arg.get_long() != Some("config") && arg.get_env().is_some())
}

fn name_and_variable(arg: &Arg) -> Option<(String, OsString)> {
    Some((arg.get_long()?.to_owned(), arg.get_env()?.to_owned()))
}

/// Finds the value of `--config` by hand, because clap parses the command line only after the file
/// has been read.
fn config_argument(arguments: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut arguments = arguments.take_while(|argument| argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next();
        }
        let text = argument.to_str().unwrap_or_default();
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<ConfigFile> {
        ConfigFile::parse(Path::new("test.toml"), text)
    }

    #[test]
    fn values_are_texts_as_a_user_would_type_them() {
        let file = parse("port = 1\nlog = \"info\"\noffline = true\ncache-mb = 0.5\n").expect("ok");
        let values: Vec<&str> = file.values.values().map(String::as_str).collect();
        assert_eq!(values, ["0.5", "info", "true", "1"]);
        assert!(file.sets("port") && !file.sets("host"));
        let error = parse("port = [1]").expect_err("a list");
        assert!(error.to_string().starts_with("test.toml: `port` must be"));
    }

    #[test]
    fn the_config_argument_is_found_in_both_forms_and_not_after_two_dashes() {
        let find = |line: &str| config_argument(line.split(' ').map(OsString::from));
        assert_eq!(find("serve --config a.toml"), Some("a.toml".into()));
        assert_eq!(find("--config=b.toml serve"), Some("b.toml".into()));
        assert_eq!(find("embed -- --config c.toml"), None);
        assert_eq!(find("serve --config"), None);
    }

    #[test]
    fn only_flags_with_the_variable_of_serve_get_the_value() {
        let flag = |variable: &'static str| Arg::new("port").long("port").env(variable);
        let command = Command::new("test")
            .subcommand(Command::new("serve").arg(flag("TEST_PORT")))
            .subcommand(Command::new("other").arg(flag("TEST_OTHER")));
        let file = parse("port = 1").expect("ok");
        let command = file.apply(command).expect("a known setting");
        let defaults = |name: &str| {
            let command = command.find_subcommand(name).expect("a command");
            let arg = command.get_arguments().next().expect("a flag");
            arg.get_default_values().len()
        };
        assert_eq!((defaults("serve"), defaults("other")), (1, 0));
    }
}
