//! What commands print, write and return.

use std::{
    fmt::Display,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use serde::Serialize;

use crate::{
    artifacts::write_atomically,
    error::{Error, Result},
};

/// 0 for good, 1 for not.
pub(super) fn exit_code(good: bool) -> ExitCode {
    ExitCode::from(u8::from(!good))
}

pub(super) fn print_json(content: &impl Serialize) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(content)?)?;
    Ok(())
}

/// Prints the files that failed under a heading, if there are any.
pub(super) fn print_failures<E: Display>(
    heading: &str,
    failures: &[(String, E)],
) -> io::Result<()> {
    let mut out = io::stdout();
    if !failures.is_empty() {
        writeln!(out, "{} {heading}:", failures.len())?;
    }
    failures
        .iter()
        .try_for_each(|(path, error)| writeln!(out, "  {path}: {error}"))
}

/// Writes a file as a whole or not at all.
pub(super) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<()> {
    write_atomically(path, |file| {
        let mut writer = BufWriter::new(file);
        write(&mut writer)
            .and_then(|()| writer.flush())
            .map_err(|error| Error::writing(path, error))
    })
}

/// The extension of a path; empty if it has none in UTF-8.
pub(super) fn extension(path: &Path) -> &str {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.unwrap_or_default()
}
