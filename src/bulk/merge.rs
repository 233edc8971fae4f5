//! Joins the outputs of all shards, in the order of the shards.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    column::writer::ColumnCloseResult,
    errors::ParquetError,
    file::{
        metadata::ParquetMetaDataReader, properties::WriterProperties, writer::SerializedFileWriter,
    },
};

use super::output::Format;
use crate::{
    artifacts::write_atomically,
    error::{Error, Kind, Result},
    features::npy,
};

/// Joins files of one format, with those next to them, to a file of the same format.
pub fn merge(format: Format, files: &[PathBuf], output: &Path) -> Result<()> {
    match format {
        Format::Jsonl => concatenate(files, output),
        Format::Npy => merge_npy(files, output),
        Format::Parquet => merge_parquet(files, output),
        Format::Tar => merge_tar(files, output),
    }
}

fn concatenate(files: &[PathBuf], output: &Path) -> Result<()> {
    write_atomically(output, |to| {
        for path in files {
            let mut from = File::open(path).map_err(|error| Error::reading(path, error))?;
            io::copy(&mut from, to).map_err(|error| Error::writing(output, error))?;
        }
        Ok(())
    })
}

fn merge_npy(files: &[PathBuf], output: &Path) -> Result<()> {
    for ending in Format::Npy.companions() {
        let files: Vec<PathBuf> = files
            .iter()
            .map(|path| path.with_extension(ending))
            .filter(|path| path.exists())
            .collect();
        let output = output.with_extension(ending);
        if files.is_empty() {
            continue;
        }
        if ending.ends_with(".npy") {
            join_arrays(&files, &output)?;
        } else {
            concatenate(&files, &output)?;
        }
    }
    // Last, as where the files were written.
    join_arrays(files, output)
}

/// Joins arrays along their first axis.
fn join_arrays(files: &[PathBuf], output: &Path) -> Result<()> {
    let mut rows = 0;
    let mut shape: Option<(String, Vec<u64>)> = None;
    for path in files {
        let damaged = || Error::damaged(format!("{} is no matrix of this program", path.display()));
        let mut header = [0; npy::HEADER];
        let mut file = File::open(path).map_err(|error| Error::reading(path, error))?;
        file.read_exact(&mut header).map_err(|_| damaged())?;
        let (values, mut lengths) = npy::parse_header(&header).ok_or_else(damaged)?;
        let count = std::mem::take(lengths.first_mut().ok_or_else(damaged)?);
        // Shards without images do not know the number of patches.
        if count == 0 {
            continue;
        }
        rows += count;
        let other = shape.get_or_insert_with(|| (values.clone(), lengths.clone()));
        if *other != (values, lengths) {
            let detail = format!("{} has rows of another shape than others", path.display());
            return Err(Error::new(Kind::Conflict, detail));
        }
    }
    let writing = |error| Error::writing(output, error);
    write_atomically(output, |to| {
        let (values, mut lengths) = shape.unwrap_or_else(|| ("<f4".to_owned(), vec![0, 0]));
        lengths[0] = rows;
        to.write_all(&npy::header_of(&values, &lengths))
            .map_err(writing)?;
        for path in files {
            let mut from = File::open(path).map_err(|error| Error::reading(path, error))?;
            let mut header = [0; npy::HEADER];
            from.read_exact(&mut header)
                .map_err(|error| Error::reading(path, error))?;
            io::copy(&mut from, to).map_err(writing)?;
        }
        Ok(())
    })
}

/// Copies groups of rows as they are.
fn merge_parquet(files: &[PathBuf], output: &Path) -> Result<()> {
    let failed = |error: ParquetError| {
        let detail = format!("merging into {}: {error}", output.display());
        Error::new(Kind::Io, detail).with_source(error)
    };
    write_atomically(output, |to| {
        let mut writer: Option<SerializedFileWriter<_>> = None;
        let mut to = Some(BufWriter::new(to));
        for path in files {
            let file = File::open(path).map_err(|error| Error::reading(path, error))?;
            let metadata = ParquetMetaDataReader::new()
                .parse_and_finish(&file)
                .map_err(failed)?;
            let about = metadata.file_metadata();
            if let (None, Some(to)) = (&writer, to.take()) {
                let properties = WriterProperties::builder()
                    .set_created_by(about.created_by().unwrap_or_default().to_owned())
                    .set_key_value_metadata(about.key_value_metadata().cloned())
                    .build();
                let schema = about.schema_descr().root_schema_ptr();
                let opened = SerializedFileWriter::new(to, schema, Arc::new(properties));
                writer = Some(opened.map_err(failed)?);
            }
            let Some(writer) = &mut writer else {
                continue;
            };
            for group in metadata.row_groups() {
                let mut to = writer.next_row_group().map_err(failed)?;
                for column in group.columns() {
                    let close = ColumnCloseResult {
                        bytes_written: column.compressed_size().cast_unsigned(),
                        rows_written: group.num_rows().cast_unsigned(),
                        metadata: column.clone(),
                        bloom_filter: None,
                        column_index: None,
                        offset_index: None,
                    };
                    to.append_column(&file, close).map_err(failed)?;
                }
                to.close().map_err(failed)?;
            }
        }
        match writer {
            Some(writer) => writer.close().map(drop).map_err(failed),
            None => Ok(()),
        }
    })
}

/// Numbers the images of all files through.
fn merge_tar(files: &[PathBuf], output: &Path) -> Result<()> {
    let writing = |error| Error::writing(output, error);
    write_atomically(output, |to| {
        let mut archive = tar::Builder::new(BufWriter::new(to));
        let mut first = 0_u64;
        for path in files {
            let reading = |error| Error::reading(path, error);
            let file = File::open(path).map_err(reading)?;
            let mut from = tar::Archive::new(BufReader::new(file));
            let mut count = 0;
            for member in from.entries().map_err(reading)? {
                let member = member.map_err(reading)?;
                let name = member
                    .path()
                    .map_err(reading)?
                    .to_string_lossy()
                    .into_owned();
                let numbered = name
                    .split_once('.')
                    .and_then(|(index, ending)| Some((index.parse::<u64>().ok()?, ending)));
                let Some((index, ending)) = numbered else {
                    let path = path.display();
                    return Err(Error::damaged(format!("{path} has another member: {name}")));
                };
                count = count.max(index + 1);
                let mut header = member.header().clone();
                let name = format!("{:09}.{ending}", first + index);
                archive
                    .append_data(&mut header, name, member)
                    .map_err(writing)?;
            }
            first += count;
        }
        let mut to = archive.into_inner().map_err(writing)?;
        to.flush().map_err(writing)
    })
}
