//! `dinoserve openapi`.

use std::io::Write;

pub(super) fn run() -> anyhow::Result<()> {
    let json = crate::http::description().to_pretty_json()?;
    writeln!(std::io::stdout().lock(), "{json}")?;
    Ok(())
}
