//! `dinoserve gallery export -o FILE`.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::Args;
use futures_util::TryStreamExt;
use serde::Serialize;

use super::OneGallery;
use crate::{
    artifacts::write_atomically,
    cli::progress::{Progress, Unit},
    error::{Error, Result},
    features::npy,
    gallery::{GalleryInfo, ItemStream, Label, Metadata, OpenMode, Parts, StoredItem, read_whole},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// File to write: `.jsonl` (a line per item, with the vectors beside it in `.npy`, in the same
    /// order) or, if the program was built with the feature `parquet`, `.parquet`
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    which: OneGallery,
}

/// A line of the output.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    label: Option<&'a str>,
    metadata: &'a Metadata,
    stored_ms: u64,
}

/// The items of a gallery, one after the other, with progress on the terminal.
pub(in crate::cli) struct Items {
    tokio: tokio::runtime::Runtime,
    stream: ItemStream,
    progress: Progress,
    info: GalleryInfo,
    /// Items that were given.
    pub(super) given: u64,
}

impl Items {
    /// The next item.
    pub(super) fn next(&mut self) -> Result<Option<StoredItem>> {
        let item = self.tokio.block_on(self.stream.try_next())?;
        self.given += u64::from(item.is_some());
        self.progress
            .show("exporting", self.given, Some(self.info.items));
        if let Some(StoredItem { item, vector, .. }) = &item
            && vector.len() != self.info.binding.dim
        {
            let detail = format!(
                "the item {:?} is damaged: it has no whole vector; see `gallery check`",
                item.id.as_str()
            );
            return Err(Error::internal(detail));
        }
        Ok(item)
    }
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let write = match self
            .output
            .extension()
            .and_then(|extension| extension.to_str())
        {
            Some("jsonl") => write_lines,
            #[cfg(feature = "parquet")]
            Some("parquet") => super::parquet::write,
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => {
                bail!(
                    "this program was built without Parquet: cargo build --release --features parquet"
                )
            }
            _ => bail!(
                "{}: the output must end in .jsonl or .parquet",
                self.output.display()
            ),
        };
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let (info, stream) = tokio.block_on(async {
            let store = self.which.place.open(OpenMode::Read).await?;
            anyhow::Ok(
                read_whole(
                    &store,
                    &self.which.name,
                    Parts {
                        vector: true,
                        ..Parts::NONE
                    },
                )
                .await?,
            )
        })?;
        let progress = Progress::new(Unit::Images);
        let mut items = Items {
            tokio,
            stream,
            progress,
            info: info.clone(),
            given: 0,
        };
        write(&self.output, &info, &mut items)?;
        items.progress.finish();
        writeln!(
            std::io::stdout(),
            "{} items written to {}",
            items.given,
            self.output.display()
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write_lines(output: &Path, info: &GalleryInfo, items: &mut Items) -> Result<()> {
    let matrix_path = output.with_extension("npy");
    let writing = |path: &Path, error| Error::io(format_args!("writing {}", path.display()), error);
    let to_lines = |error| writing(output, error);
    let to_matrix = |error| writing(&matrix_path, error);
    write_atomically(output, |lines| {
        write_atomically(&matrix_path, |matrix| {
            let mut lines = BufWriter::new(lines);
            let mut values = BufWriter::new(matrix);
            // How many rows there are is known at the end.
            values
                .write_all(&npy::header(0, info.binding.dim))
                .map_err(to_matrix)?;
            while let Some(StoredItem { item, vector, .. }) = items.next()? {
                let (id, label) = (item.id.as_str(), item.label.as_ref().map(Label::as_str));
                let line = Line {
                    id,
                    label,
                    metadata: &item.metadata,
                    stored_ms: item.stored_ms,
                };
                serde_json::to_writer(&mut lines, &line).map_err(|error| to_lines(error.into()))?;
                lines.write_all(b"\n").map_err(to_lines)?;
                vector
                    .iter()
                    .try_for_each(|value| values.write_all(&value.to_le_bytes()))
                    .map_err(to_matrix)?;
            }
            lines.flush().map_err(to_lines)?;
            let matrix: &mut File = values
                .into_inner()
                .map_err(|error| to_matrix(error.into_error()))?;
            matrix.seek(SeekFrom::Start(0)).map_err(to_matrix)?;
            matrix
                .write_all(&npy::header(items.given, info.binding.dim))
                .map_err(to_matrix)
        })
    })
}
