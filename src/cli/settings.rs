//! `dinoserve.toml`: settings that stand below environment variables and flags.
//!
//! The file's keys are the flags of `dinoserve serve` without their dashes. A value takes the place
//! of the flag's default, in every command that has the flag, so clap reads and checks it as if it
//! had been typed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Arg, Command};

/// The file where none is named.
const IN_WORKING_DIRECTORY: &str = "dinoserve.toml";

/// The values of a file.
#[derive(Debug)]
pub(super) struct Settings {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

impl Settings {
    /// The file that `--config` or `DINOSERVE_CONFIG` names, else `dinoserve.toml` in the working
    /// directory if there is one.
    pub(super) fn find(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Self>> {
        let named = named(arguments)
            .or_else(|| std::env::var_os("DINOSERVE_CONFIG").filter(|path| !path.is_empty()));
        let path = named.map_or_else(|| PathBuf::from(IN_WORKING_DIRECTORY), PathBuf::from);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::read(&path, &text).map(Some),
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && path == Path::new(IN_WORKING_DIRECTORY) =>
            {
                Ok(None)
            }
            Err(error) => {
                Err(error).with_context(|| format!("reading the settings in {}", path.display()))
            }
        }
    }

    fn read(path: &Path, text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = text
            .parse()
            .with_context(|| format!("reading the settings in {}", path.display()))?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => bail!(
                    "{}: `{key}` must be a text, a number, true or false",
                    path.display()
                ),
            };
            values.insert(key, value);
        }
        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }

    /// Where the values come from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file sets the flag with this long name.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether some flag has this value from the file.
    pub(super) fn has_value(&self, value: &str) -> bool {
        self.values.values().any(|own| own == value)
    }

    /// The command line whose defaults are the file's values.
    pub(super) fn apply(&self, command: Command) -> anyhow::Result<Command> {
        // Flags of other commands may have the same name and another meaning; the same variable is
        // the same setting.
        let known: BTreeMap<String, OsString> =
            settable(&command).filter_map(name_and_variable).collect();
        let unknown = self.values.keys().find(|key| !known.contains_key(*key));
        if let Some(key) = unknown {
            let names: BTreeSet<&str> = known.keys().map(String::as_str).collect();
            let names = Vec::from_iter(names).join(", ");
            bail!(
                "{}: there is no setting `{key}`; there are {names}",
                self.path.display()
            );
        }
        Ok(self.replace_defaults(command, &known))
    }

    fn replace_defaults(&self, command: Command, known: &BTreeMap<String, OsString>) -> Command {
        let command = command.mut_args(|arg| match name_and_variable(&arg) {
            Some((name, variable)) if known.get(&name) == Some(&variable) => {
                match self.values.get(&name) {
                    Some(value) => arg.default_value(value.clone()),
                    None => arg,
                }
            }
            _ => arg,
        });
        command.mut_subcommands(|command| self.replace_defaults(command, known))
    }
}

/// The flags that a file can set: those of `serve` and of the program.
pub(super) fn settable(command: &Command) -> impl Iterator<Item = &Arg> {
    let of_serve = command
        .find_subcommand("serve")
        .into_iter()
        .flat_map(Command::get_arguments);
    of_serve
        .chain(command.get_arguments())
        .filter(|arg| arg.get_long() != Some("config") && arg.get_env().is_some())
}

fn name_and_variable(arg: &Arg) -> Option<(String, OsString)> {
    Some((arg.get_long()?.to_owned(), arg.get_env()?.to_owned()))
}

/// What `--config` says. It is looked for by hand, as the command line cannot be read before the
/// file has been.
fn named(arguments: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut arguments = arguments.take_while(|argument| argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next();
        }
        if let Some(path) = argument
            .to_str()
            .and_then(|text| text.strip_prefix("--config="))
        {
            return Some(path.into());
        }
    }
    None
}
