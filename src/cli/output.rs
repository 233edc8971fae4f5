//! What commands print, write and return.

use std::{
    fmt::{Display, Write as _},
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use serde::Serialize;

use crate::{
    artifacts::write_atomically,
    error::{Error, Result},
    names::plural,
    sources::SkippedFiles,
};

/// 0 for good, 1 for not.
pub(super) fn exit_code(good: bool) -> ExitCode {
    ExitCode::from(u8::from(!good))
}

pub(super) fn print_json(content: &impl Serialize) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(content)?)?;
    Ok(())
}

/// Writes a file with indented JSON.
pub(super) fn write_json(path: &Path, content: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(content)?;
    Ok(write_file(path, |writer| writer.write_all(&text))?)
}

/// Prints the files that were skipped by kind, and those that failed one by one, if there are any.
pub(super) fn print_unused<E: Display>(
    out: &mut impl Write,
    skipped: &SkippedFiles,
    action: &str,
    failures: &[(String, E)],
) -> io::Result<()> {
    if !skipped.is_empty() {
        writeln!(out, "{skipped}")?;
    }
    if !failures.is_empty() {
        writeln!(
            out,
            "{} could not be {action}:",
            plural(failures.len(), "file")
        )?;
    }
    failures
        .iter()
        .try_for_each(|(path, error)| writeln!(out, "  {path}: {error}"))
}

/// Prints how many images need `--levels data`, and where it can be given, if there are any.
pub(super) fn print_dim(out: &mut impl Write, count: usize, place: &str) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let (are, them) = match count {
        1 => ("is", "it"),
        _ => ("are", "them"),
    };
    let images = plural(count, "image");
    writeln!(
        out,
        "{images} {are} nearly black; --levels data stretches {them}{place}"
    )
}

/// Describes an error with its causes. A cause that the text before names already is left out.
pub(super) fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text
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

/// Returns the extension of a path; empty if it has none in UTF-8.
pub(super) fn extension(path: &Path) -> &str {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let missing = || std::io::Error::other("no such file");
        let error = anyhow::Error::from(Error::reading(Path::new("a/b"), missing()));
        assert_eq!(describe(&error), "reading a/b: no such file");
        let error = anyhow::Error::from(missing()).context("starting");
        assert_eq!(describe(&error), "starting: no such file");
    }
}
