//! `dinoserve embed DIR -o FILE`.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::bail;
use clap::Args;
use ndarray::Array2;
use serde::Serialize;

use super::{
    common::{EngineFlags, LimitFlags, VectorFlags},
    vectors::embed_files,
};
use crate::{
    artifacts::{IMAGE_ENDINGS, below, images_of, write_atomically},
    error::Error,
    features::npy,
    service::{EmbedOptions, Extractor, ImageOptions},
    vision::PreprocessingOverrides,
};

#[derive(Debug, Args)]
pub(super) struct Embed {
    /// Folder of images; its subfolders are read, too
    folder: PathBuf,

    /// File to write: `.npy` (a matrix, with the paths beside it in `.paths.txt`) or `.jsonl` (a
    /// line per image)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Leave the vectors as long as they are
    #[arg(long)]
    no_normalize: bool,

    #[command(flatten)]
    vector: VectorFlags,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: LimitFlags,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    embedding: &'a [f32],
}

impl Embed {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let as_matrix = match self
            .output
            .extension()
            .and_then(|extension| extension.to_str())
        {
            Some("npy") => true,
            Some("jsonl") => false,
            _ => bail!(
                "{}: the output must end in .npy or .jsonl",
                self.output.display()
            ),
        };
        let (paths, mut bad) = images_of(&self.folder)?;
        if paths.is_empty() {
            bail!(
                "{} holds no images ({})",
                self.folder.display(),
                IMAGE_ENDINGS.join(", ")
            );
        }
        let runtime = self.engine.runtime()?;
        let model = self.engine.model_file()?;
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let (engine, thread) = self.engine.start(&runtime, model)?;
        let started = Instant::now();
        let (good, unreadable) = tokio
            .block_on(self.embed_all(Extractor::new(engine, self.limits.limits(), 0), &paths))?;
        thread.join();
        bad.extend(unreadable);

        if as_matrix {
            self.write_matrix(&good)?;
        } else {
            self.write_lines(&good)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{} images embedded in {seconds:.1} s ({:.1} images/s), written to {}",
            good.len(),
            good.len() as f64 / seconds,
            self.output.display()
        )?;
        if bad.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{} files could not be read:", bad.len())?;
        bad.iter()
            .try_for_each(|(path, error)| writeln!(out, "  {path}: {error}"))?;
        Ok(if good.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    /// Vectors and errors, each with its path, in the order of `paths`.
    #[allow(
        clippy::type_complexity,
        reason = "a pair of lists of pairs, used once"
    )]
    async fn embed_all(
        &self,
        extractor: Extractor,
        paths: &[PathBuf],
    ) -> anyhow::Result<(Vec<(String, Vec<f32>)>, Vec<(String, Error)>)> {
        let VectorFlags {
            pooling,
            layers,
            size,
            resize,
        } = self.vector;
        let overrides = PreprocessingOverrides {
            size,
            resize,
            ..PreprocessingOverrides::default()
        };
        let image = ImageOptions {
            overrides,
            ..ImageOptions::default()
        };
        let options = EmbedOptions {
            pooling: pooling.unwrap_or_default(),
            normalize: !self.no_normalize,
            layers: layers.unwrap_or(1),
            tokens: false,
        };
        let vectors = embed_files(&extractor, paths, &image, &options, "embedding").await?;
        let (mut good, mut bad) = (Vec::with_capacity(paths.len()), Vec::new());
        for (path, vector) in paths.iter().zip(vectors) {
            let path = below(&self.folder, path);
            match vector {
                Ok(vector) => good.push((path, vector)),
                Err(error) => bad.push((path, error)),
            }
        }
        Ok((good, bad))
    }

    fn write_matrix(&self, embeddings: &[(String, Vec<f32>)]) -> anyhow::Result<()> {
        let dim = embeddings.first().map_or(0, |(_, vector)| vector.len());
        let values = embeddings
            .iter()
            .flat_map(|(_, vector)| vector.iter().copied())
            .collect();
        let bytes = npy::encode(&Array2::from_shape_vec((embeddings.len(), dim), values)?)?;
        let names: String = embeddings
            .iter()
            .map(|(path, _)| format!("{path}\n"))
            .collect();
        self.write(&self.output, |file| file.write_all(&bytes))?;
        self.write(&self.output.with_extension("paths.txt"), |file| {
            file.write_all(names.as_bytes())
        })
    }

    fn write_lines(&self, embeddings: &[(String, Vec<f32>)]) -> anyhow::Result<()> {
        self.write(&self.output, |file| {
            let mut writer = BufWriter::new(file);
            for (path, embedding) in embeddings {
                serde_json::to_writer(&mut writer, &Line { path, embedding })?;
                writer.write_all(b"\n")?;
            }
            writer.flush()
        })
    }

    fn write(
        &self,
        path: &Path,
        write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        write_atomically(path, |file| {
            write(file)
                .map_err(|error| Error::io(format_args!("writing {}", path.display()), error))
        })?;
        Ok(())
    }
}
