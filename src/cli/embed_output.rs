//! The output of `embed`: a matrix with the paths next to it, or a line for each image.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::bail;
use ndarray::Array2;
use serde::Serialize;

use super::output::{extension, write_file};
use crate::features::npy;

/// Where the results go, and in which format.
#[derive(Debug)]
pub(super) enum EmbedOutput {
    /// A `.npy`, with the paths in a `.paths.txt` next to it.
    Matrix(PathBuf),
    /// A `.jsonl`.
    Lines(PathBuf),
    /// Lines on standard output.
    Stdout,
}

/// A path and the vector of its image; a line of `.jsonl`.
#[derive(Serialize)]
pub(super) struct EmbeddedFile<'a> {
    pub(super) path: &'a str,
    pub(super) embedding: Vec<f32>,
}

impl EmbedOutput {
    /// Chooses the format by the name of the file; `-` is standard output.
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        match extension(path) {
            _ if path.as_os_str() == "-" => Ok(Self::Stdout),
            "npy" => Ok(Self::Matrix(path.to_owned())),
            "jsonl" => Ok(Self::Lines(path.to_owned())),
            _ => bail!(
                "{}: the output must end in .npy or .jsonl, or be - for lines of JSON on standard \
                 output",
                path.display()
            ),
        }
    }

    /// Returns the file, unless it is standard output.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Matrix(path) | Self::Lines(path) => Some(path),
            Self::Stdout => None,
        }
    }

    /// Writes all results, or nothing.
    pub(super) fn write(&self, embedded: &[EmbeddedFile<'_>]) -> anyhow::Result<()> {
        match self {
            Self::Matrix(path) => write_matrix(path, embedded),
            Self::Lines(path) => Ok(write_file(path, |writer| write_lines(writer, embedded))?),
            Self::Stdout => Ok(write_lines(&mut io::stdout().lock(), embedded)?),
        }
    }
}

fn write_matrix(output: &Path, embedded: &[EmbeddedFile<'_>]) -> anyhow::Result<()> {
    let dim = embedded.first().map_or(0, |file| file.embedding.len());
    let values = embedded.iter().flat_map(|file| &file.embedding);
    let matrix = Array2::from_shape_vec((embedded.len(), dim), values.copied().collect())?;
    let bytes = npy::encode(&matrix)?;
    write_file(&output.with_extension("paths.txt"), |writer| {
        let mut paths = embedded.iter().map(|file| &file.path);
        paths.try_for_each(|path| writeln!(writer, "{path}"))
    })?;
    // Written last, so that its presence means that the paths are there.
    Ok(write_file(output, |writer| writer.write_all(&bytes))?)
}

fn write_lines(writer: &mut impl Write, embedded: &[EmbeddedFile<'_>]) -> io::Result<()> {
    embedded.iter().try_for_each(|file| {
        serde_json::to_writer(&mut *writer, file)?;
        writer.write_all(b"\n")
    })
}
