//! `dinoserve gallery export -o FILE`.

use std::{
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{items::Items, selection::OneGallery};
use crate::{
    artifacts::write_atomically,
    cli::output::extension,
    error::{Error, Result},
    features::npy,
    gallery::{Label, Metadata, StoredItem},
    names::plural,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// File to write: `.jsonl` (a line per item, with the vectors in the same order in a `.npy`
    /// next to it) or `.parquet`
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    gallery: OneGallery,
}

/// An item without its vector; a line of `.jsonl`.
#[derive(Serialize)]
struct ExportedItem<'a> {
    id: &'a str,
    label: Option<&'a str>,
    metadata: &'a Metadata,
    stored_ms: u64,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.output.display();
        let write = match extension(&self.output) {
            "jsonl" => write_lines,
            "parquet" => super::parquet::write,
            _ => bail!("{output}: the output must end in .jsonl or .parquet"),
        };
        let mut items = Items::open(&self.gallery)?;
        write(&self.output, &mut items)?;
        let count = items.count();
        drop(items);
        let items = plural(count, "item");
        writeln!(std::io::stdout(), "{items} written to {output}")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write_lines(output: &Path, items: &mut Items) -> Result<()> {
    let matrix_path = output.with_extension("npy");
    let lines_error = |error| Error::writing(output, error);
    let matrix_error = |error| Error::writing(&matrix_path, error);
    write_atomically(output, |lines| {
        write_atomically(&matrix_path, |matrix| {
            let mut lines = BufWriter::new(lines);
            let mut matrix = BufWriter::new(matrix);
            // The number of rows is known only at the end.
            let header = npy::header(0, items.dim());
            matrix.write_all(&header).map_err(matrix_error)?;
            while let Some(StoredItem { item, vector, .. }) = items.next()? {
                let line = ExportedItem {
                    id: item.id.as_str(),
                    label: item.label.as_ref().map(Label::as_str),
                    metadata: &item.metadata,
                    stored_ms: item.stored_ms,
                };
                let written = serde_json::to_writer(&mut lines, &line);
                written.map_err(|error| lines_error(error.into()))?;
                lines.write_all(b"\n").map_err(lines_error)?;
                vector
                    .iter()
                    .try_for_each(|value| matrix.write_all(&value.to_le_bytes()))
                    .map_err(matrix_error)?;
            }
            lines.flush().map_err(lines_error)?;
            let matrix = matrix.into_inner();
            let matrix = matrix.map_err(|error| matrix_error(error.into_error()))?;
            matrix.seek(SeekFrom::Start(0)).map_err(matrix_error)?;
            let header = npy::header(items.count(), items.dim());
            matrix.write_all(&header).map_err(matrix_error)
        })
    })
}
