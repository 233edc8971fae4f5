//! A matrix with the ids of its rows next to it.

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
};

use super::sink::{Results, Sink};
use crate::{
    artifacts::write_atomically,
    bulk::{feature::Dtype, row::Schema},
    error::{Error, Kind, Result},
    features::npy,
};

/// `.npy`
pub(super) struct Npy;

/// Ending of the list of ids.
const PATHS: &str = "paths.txt";
/// Ending of the scales of integers.
const SCALES: &str = "scales.npy";

impl Sink for Npy {
    fn companions(&self) -> &'static [&'static str] {
        &[PATHS, SCALES]
    }

    fn check(&self, schema: &Schema) -> Result<()> {
        match schema.columns.as_slice() {
            [_] => Ok(()),
            _ => Err(Error::option(
                "features",
                "a .npy has one feature; for several use .parquet, .jsonl or .tar",
            )),
        }
    }

    fn write(&self, path: &Path, results: &Results<'_>) -> Result<()> {
        let schema = results.schema;
        self.check(schema)?;
        let column = &schema.columns[0];
        let mut shape = vec![results.count];
        if column.is_tokens() {
            shape.push(patches_of(results)?);
        }
        let scales_shape = shape.clone();
        shape.push(column.width as u64);
        write_with(&path.with_extension(PATHS), |file| {
            for row in (results.read)()? {
                let id = row?.id;
                // A line break in an id would shift all ids after it.
                let id = id.replace(['\n', '\r'], " ");
                writeln!(file, "{id}").map_err(|error| Error::writing(path, error))?;
            }
            Ok(())
        })?;
        let writing = |error| Error::writing(path, error);
        if schema.dtype != Dtype::I8 {
            // Those of an earlier output of this name.
            match fs::remove_file(path.with_extension(SCALES)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(writing(error));
                }
                _ => (),
            }
        } else {
            write_with(&path.with_extension(SCALES), |file| {
                let header = npy::header_of("<f4", &scales_shape);
                file.write_all(&header).map_err(writing)?;
                for row in (results.read)()? {
                    for scale in &row?.columns[0].scales {
                        file.write_all(&scale.to_le_bytes()).map_err(writing)?;
                    }
                }
                Ok(())
            })?;
        }
        // Written last, so that its presence means that the others are there.
        write_with(path, |file| {
            let header = npy::header_of(schema.dtype.numpy(), &shape);
            file.write_all(&header).map_err(writing)?;
            for row in (results.read)()? {
                file.write_all(&row?.columns[0].bytes).map_err(writing)?;
            }
            Ok(())
        })
    }
}

fn write_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut std::fs::File>) -> Result<()>,
) -> Result<()> {
    write_atomically(path, |file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.flush().map_err(|error| Error::writing(path, error))
    })
}

/// Returns the number of patches, which must be the same for all images.
fn patches_of(results: &Results<'_>) -> Result<u64> {
    let mut found: Option<[usize; 2]> = None;
    for row in (results.read)()? {
        let row = row?;
        let [height, width] = *found.get_or_insert(row.grid);
        if row.grid != [height, width] {
            let detail = format!(
                "{} has {} × {} patches, but others have {height} × {width}; a .npy needs one \
                 grid for all: give --resize crop or squash, or use .parquet",
                row.id, row.grid[0], row.grid[1]
            );
            return Err(Error::new(Kind::InvalidOption, detail));
        }
    }
    let [height, width] = found.unwrap_or_default();
    Ok((height * width) as u64)
}
