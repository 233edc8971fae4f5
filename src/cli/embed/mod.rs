//! `dinoserve embed SOURCE… -o FILE`.

mod file;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Instant,
};

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, stream::BoxStream};
use serde_json::json;

use super::{
    executor::block_on,
    flags::{EmbedFlags, names},
    interrupt::{self, interrupted, is_interrupted},
    output::{exit_code, print_dim, print_unused},
    pace::short_number,
    progress::{Progress, Unit},
};
use crate::{
    bulk::{
        Dtype, Failure, Feature, Journal, Manifest, Output, OutputFile, Pipeline, ReadAhead,
        Record, Saved, Schema, Summary, write_line,
    },
    error::{Error, Result},
    features::pool::Pooling,
    names::plural,
    service::Extractor,
    sources::{Listed, Listing, Shard},
};

#[derive(Debug, Args)]
pub(super) struct Embed {
    /// Folders of images, with their subfolders; images; lists (`.txt`, `.csv`, `.jsonl`, or `-`
    /// for standard input); `.parquet` and WebDataset's `.tar`; `s3://`, `gs://`, `az://` and
    /// `https://` addresses of those or of prefixes; or patterns such as `'shards/*.tar'`
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// File to write, here or in a store: `.parquet`, `.npy` (a matrix, with the paths in a
    /// `.paths.txt` next to it), `.jsonl` (a line per image), `.tar` (WebDataset), or `-` for lines
    /// on standard output. A stopped command keeps what is done in a `.partial` next to the file,
    /// and the same command goes on from there
    #[arg(short, long, value_name = "FILE")]
    output: String,

    /// Features of each image, in place of the one of --pooling
    #[arg(long, value_delimiter = ',', value_parser = names::<Feature>())]
    #[arg(value_name = "FEATURE,…", conflicts_with = "pooling")]
    features: Vec<Feature>,

    /// Type of the values; `i8` has a scale for each vector
    #[arg(long, value_parser = names::<Dtype>(), default_value = "f32")]
    dtype: Dtype,

    /// Do not scale the vectors to length 1
    #[arg(long)]
    no_normalize: bool,

    /// Part of the images, from 0/N to N-1/N, which gets an output and a manifest of its own
    /// [default: that of a Kubernetes Indexed Job, a Slurm array or torchrun, else all]
    #[arg(long, env = "DINOSERVE_SHARD", value_name = "I/N")]
    shard: Option<Shard>,

    /// Column of the images in Parquet files, as bytes or as paths [default: image, bytes, path, …]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    /// Folder of unfinished results whose output is in a store [default: a folder for temporary
    /// files]
    #[arg(long, env = "DINOSERVE_WORK_DIR", value_name = "DIR")]
    work_dir: Option<PathBuf>,

    /// Maximum number of files that are read ahead of the model
    #[arg(long, env = "DINOSERVE_READ_AHEAD_FILES", value_name = "COUNT")]
    #[arg(default_value_t = ReadAhead::default().files)]
    read_ahead_files: usize,

    /// Maximum number of bytes that are read ahead of the model
    #[arg(long, env = "DINOSERVE_READ_AHEAD_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = ReadAhead::default().bytes)]
    read_ahead_bytes: u64,

    #[command(flatten)]
    embed: EmbedFlags,
}

/// Where the results go.
enum Target {
    /// Lines on standard output, which cannot be continued.
    Stdout,
    File(Output),
}

/// A run before its first image.
struct Run {
    schema: Schema,
    layers: usize,
    /// What is known of the manifest before the first image.
    manifest: Manifest,
}

impl Embed {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let target = match self.output.as_str() {
            "-" => Target::Stdout,
            output => Target::File(Output::parse(output)?),
        };
        let shard = self.shard()?;
        block_on(self.embed.with_extractor(async |extractor| match &target {
            Target::Stdout => self.print_lines(&extractor, shard).await,
            Target::File(output) => self.write_file(&extractor, output, shard).await,
        }))
    }

    /// Returns the shard of this process.
    fn shard(&self) -> Result<Shard> {
        if let Some(shard) = self.shard {
            return Ok(shard);
        }
        let Some((shard, variable)) = Shard::from_environment()? else {
            return Ok(Shard::WHOLE);
        };
        eprintln!("shard {shard}, by {variable}");
        Ok(shard)
    }

    fn plan(&self, extractor: &Extractor, shard: Shard) -> Result<Run> {
        let engine = extractor.engine();
        let spec = engine.spec();
        let flags = &self.embed.run.vector;
        let pooled = flags.embed_options(Pooling::default(), !self.no_normalize);
        let features = match self.features.as_slice() {
            [] => vec![Feature::from(pooled.pooling)],
            features => features.to_vec(),
        };
        let dim = spec.architecture.dim;
        let schema = Schema::new(&features, self.dtype, pooled.layers, dim)?;
        let overrides = flags.image_options().overrides;
        let options = json!({
            "features": features,
            "dtype": self.dtype,
            "layers": pooled.layers,
            "normalize": pooled.normalize,
            "preprocessing": overrides.over(&spec.embed_preprocessing()),
        });
        Ok(Run {
            schema,
            layers: pooled.layers,
            manifest: Manifest {
                shard,
                model: spec.name.clone(),
                fingerprint: engine.fingerprint().to_owned(),
                options,
                sources: self.sources.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                images: 0,
                embedded: 0,
                failures: Vec::new(),
                output: OutputFile::default(),
            },
        })
    }

    async fn list(&self, shard: Shard) -> Result<BoxStream<'static, Result<Listed>>> {
        let listing = Listing::open(&self.sources, self.column.as_deref()).await?;
        let mut listed = listing.list(shard);
        // What is wrong with the first source is found before the model is loaded.
        let first = listed.next().await.transpose()?;
        let first = futures_util::stream::iter(first.map(Ok));
        Ok(first.chain(listed).boxed())
    }

    /// Computes the results of all images that the journal lacks.
    async fn compute(
        &self,
        extractor: &Extractor,
        run: &Run,
        journal: &mut Journal,
        saved: Option<&mut Saved>,
        mut show: impl FnMut(&Record) -> Result<()>,
    ) -> anyhow::Result<Summary> {
        let shard = run.manifest.shard;
        let listed = self.list(shard).await?;
        extractor.engine().ready().await?;
        let options = run.schema.options(run.layers, !self.no_normalize);
        options.check(extractor.engine().spec())?;
        let pipeline = Pipeline {
            extractor,
            image: self.embed.run.vector.image_options(),
            options,
            schema: &run.schema,
            read_ahead: ReadAhead {
                files: self.read_ahead_files,
                bytes: self.read_ahead_bytes,
            },
        };
        let total = self.count(shard).await?;
        let mut progress = Progress::new(Unit::Items);
        progress.show("embedding", 0, total.get().copied());
        let summary = pipeline.run(listed, journal, saved, interrupted(), |shown| {
            if !shown.is_new {
                progress.skip();
            }
            progress.show("embedding", shown.count, total.get().copied());
            show(shown.record)
        });
        Ok(summary.await?)
    }

    /// Counts the images of local folders and lists in the background.
    async fn count(&self, shard: Shard) -> Result<Arc<OnceLock<u64>>> {
        let total = Arc::new(OnceLock::new());
        let listing = Listing::open(&self.sources, self.column.as_deref()).await?;
        if listing.is_quick() {
            let counted = Arc::clone(&total);
            let mut listed = listing.list(shard);
            tokio::spawn(async move {
                let mut count = 0;
                while let Some(listed) = listed.next().await {
                    match listed {
                        Ok(Listed::Skipped { .. }) => (),
                        Ok(_) => count += 1,
                        Err(_) => return,
                    }
                }
                let _ = counted.set(count);
            });
        }
        Ok(total)
    }

    async fn print_lines(&self, extractor: &Extractor, shard: Shard) -> anyhow::Result<ExitCode> {
        let run = self.plan(extractor, shard)?;
        let folder = tempfile::tempdir().context("a folder for temporary files")?;
        let mut journal = Journal::open(&folder.path().join("lines"), &run.manifest.options)?;
        let started = Instant::now();
        let mut failures = Vec::new();
        let mut out = io::stdout().lock();
        let show = |record: &Record| {
            match record {
                Record::Row(row) => {
                    let written = write_line(&mut out, &run.schema, row);
                    return written.map_err(|error| Error::io("writing to standard output", error));
                }
                Record::Failed { name, error } => failures.push(Failure {
                    id: name.clone(),
                    error: error.clone(),
                }),
            }
            Ok(())
        };
        let summary = self
            .compute(extractor, &run, &mut journal, None, show)
            .await?;
        if is_interrupted() {
            interrupt::exit();
        }
        let out = io::stderr();
        report(out, &summary, &failures, started, "standard output")?;
        Ok(exit_code(failures.is_empty()))
    }
}

fn report(
    mut out: impl Write,
    summary: &Summary,
    failures: &[Failure],
    started: Instant,
    output: &str,
) -> io::Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let before = match summary.recalled {
        0 => String::new(),
        count => format!(", {count} by an earlier run"),
    };
    writeln!(
        out,
        "{} embedded in {seconds:.1} s ({} images/s){before}, written to {output}",
        plural(summary.embedded, "image"),
        short_number(summary.embedded as f64 / seconds),
    )?;
    print_dim(&mut out, summary.dim_images, "")?;
    let failures: Vec<_> = failures
        .iter()
        .map(|failure| (failure.id.clone(), &failure.error))
        .collect();
    print_unused(&mut out, &summary.skipped, "read", &failures)
}
