//! `dinoserve embed DIR -o FILE`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::bail;
use clap::Args;
use ndarray::Array2;
use serde::Serialize;

use super::{
    embed_files::embed_files,
    executor::block_on,
    flags::EmbedFlags,
    output::{exit_code, extension, print_failures, write_file},
};
use crate::{
    features::{npy, pool::Pooling},
    sources::{FoundImages, find_images, relative_path},
    vision::image_extensions,
};

#[derive(Debug, Args)]
pub(super) struct Embed {
    /// Folder of images; subfolders are included
    folder: PathBuf,

    /// File to write: `.npy` (a matrix, with the paths in a `.paths.txt` next to it) or `.jsonl` (a
    /// line per image)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Do not scale the vectors to length 1
    #[arg(long)]
    no_normalize: bool,

    #[command(flatten)]
    embed: EmbedFlags,
}

/// A path below the folder and the vector of its image; a line of `.jsonl`.
#[derive(Serialize)]
struct EmbeddedFile {
    path: String,
    embedding: Vec<f32>,
}

impl Embed {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.output.display();
        let write = match extension(&self.output) {
            "npy" => write_matrix,
            "jsonl" => write_lines,
            _ => bail!("{output}: the output must end in .npy or .jsonl"),
        };
        let FoundImages { paths, unreadable } = find_images(&self.folder)?;
        let mut failures = unreadable;
        if paths.is_empty() {
            let folder = self.folder.display();
            let extensions = image_extensions().join(", ");
            bail!("{folder}: the folder has no images; supported extensions: {extensions}");
        }
        let flags = &self.embed.vector;
        let image = flags.image_options();
        let options = flags.embed_options(Pooling::default(), !self.no_normalize);
        let mut started = Instant::now();
        let vectors = block_on(self.embed.with_extractor(async |extractor| {
            started = Instant::now();
            Ok(embed_files(&extractor, &paths, &image, &options, "embedding").await?)
        }))?;
        let mut embedded = Vec::with_capacity(paths.len());
        for (path, vector) in paths.iter().zip(vectors) {
            let path = relative_path(&self.folder, path);
            match vector {
                Ok(embedding) => embedded.push(EmbeddedFile { path, embedding }),
                Err(error) => failures.push((path, error)),
            }
        }

        write(&self.output, &embedded)?;
        let seconds = started.elapsed().as_secs_f64();
        writeln!(
            std::io::stdout(),
            "{} images embedded in {seconds:.1} s ({:.1} images/s), written to {output}",
            embedded.len(),
            embedded.len() as f64 / seconds
        )?;
        print_failures("files could not be read", &failures)?;
        Ok(exit_code(failures.is_empty() || !embedded.is_empty()))
    }
}

fn write_matrix(output: &Path, embedded: &[EmbeddedFile]) -> anyhow::Result<()> {
    let dim = embedded.first().map_or(0, |file| file.embedding.len());
    let values = embedded.iter().flat_map(|file| &file.embedding);
    let matrix = Array2::from_shape_vec((embedded.len(), dim), values.copied().collect())?;
    let bytes = npy::encode(&matrix)?;
    write_file(output, |writer| writer.write_all(&bytes))?;
    write_file(&output.with_extension("paths.txt"), |writer| {
        let mut paths = embedded.iter().map(|file| &file.path);
        paths.try_for_each(|path| writeln!(writer, "{path}"))
    })?;
    Ok(())
}

fn write_lines(output: &Path, embedded: &[EmbeddedFile]) -> anyhow::Result<()> {
    write_file(output, |writer| {
        embedded.iter().try_for_each(|file| {
            serde_json::to_writer(&mut *writer, file)?;
            writer.write_all(b"\n")
        })
    })?;
    Ok(())
}
