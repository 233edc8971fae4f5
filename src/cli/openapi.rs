//! `dinoserve openapi`.

use std::{io::Write, process::ExitCode};

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let json = crate::http::description().to_pretty_json()?;
    writeln!(std::io::stdout().lock(), "{json}")?;
    Ok(ExitCode::SUCCESS)
}
