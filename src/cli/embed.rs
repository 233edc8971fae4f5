//! `dinoserve embed DIR|IMAGE|- -o FILE`.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{
    embed_files::{FileVector, embed_files},
    embed_output::{EmbedOutput, EmbeddedFile},
    executor::block_on,
    flags::EmbedFlags,
    image_files::{NamedFile, Sources},
    interrupt::{self, defer_exit, is_interrupted},
    output::{exit_code, print_dim, print_unused},
    pace::short_number,
    partial::{FileIdentity, PartialResults},
    progress::{Progress, Unit},
};
use crate::{
    error::Error,
    features::pool::Pooling,
    names::plural,
    service::{EmbedOptions, Extractor, ImageOptions},
    vision::Preprocessing,
};

#[derive(Debug, Args)]
pub(super) struct Embed {
    /// Folder of images, with its subfolders; a single image; or `-` for a list of paths on
    /// standard input, one a line
    #[arg(value_name = "DIR|IMAGE|-")]
    source: PathBuf,

    /// File to write: `.npy` (a matrix, with the paths in a `.paths.txt` next to it), `.jsonl` (a
    /// line per image), or `-` for such lines on standard output. A stopped command keeps what is
    /// done in a `.partial` next to the file, and the same command goes on from there
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Do not scale the vectors to length 1
    #[arg(long)]
    no_normalize: bool,

    #[command(flatten)]
    embed: EmbedFlags,
}

/// Everything that a result depends on but the file.
#[derive(Serialize)]
struct Settings<'a> {
    version: &'a str,
    fingerprint: &'a str,
    preprocessing: Preprocessing,
    pooling: Pooling,
    layers: usize,
    normalize: bool,
}

/// The outcome of a run.
struct Outcome {
    /// The results of the files, in their order; `None` for those that are not done.
    results: Vec<Option<Result<Vec<f32>, Error>>>,
    partial: Option<PartialResults>,
    /// Number of vectors of an earlier run.
    earlier: usize,
    /// Number of images of this run that are nearly black.
    dim_images: usize,
}

impl Embed {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let output = EmbedOutput::new(&self.output)?;
        let Sources {
            files,
            unreadable: mut failures,
            skipped,
        } = Sources::find(&self.source)?;
        let flags = &self.embed.run.vector;
        let image = flags.image_options();
        let options = flags.embed_options(Pooling::default(), !self.no_normalize);
        let mut started = Instant::now();
        let Outcome {
            results,
            partial,
            earlier,
            dim_images,
        } = block_on(self.embed.with_extractor(async |extractor| {
            extractor.engine().ready().await?;
            started = Instant::now();
            embed(&extractor, &files, &image, &options, &output).await
        }))?;
        let mut embedded = Vec::with_capacity(files.len());
        for (NamedFile { name, .. }, result) in files.iter().zip(results) {
            match result {
                Some(Ok(embedding)) => embedded.push(EmbeddedFile {
                    path: name,
                    embedding,
                }),
                Some(Err(error)) => failures.push((name.clone(), error)),
                None => bail!("no answer for {name}"),
            }
        }

        output.write(&embedded)?;
        partial.map_or(Ok(()), PartialResults::finish)?;
        // Standard output may have the lines.
        let mut out: Box<dyn Write> = match output.file() {
            Some(_) => Box::new(io::stdout()),
            None => Box::new(io::stderr()),
        };
        let seconds = started.elapsed().as_secs_f64();
        let now = embedded.len() - earlier;
        let before = match earlier {
            0 => String::new(),
            count => format!(", {count} by an earlier run"),
        };
        writeln!(
            out,
            "{} embedded in {seconds:.1} s ({} images/s){before}, written to {}",
            plural(now, "image"),
            short_number(now as f64 / seconds),
            output
                .file()
                .map_or("standard output".into(), Path::to_string_lossy)
        )?;
        print_dim(&mut out, dim_images, "")?;
        print_unused(&mut out, &skipped, "read", &failures)?;
        Ok(exit_code(failures.is_empty()))
    }
}

/// Embeds the files that the partial results lack, and adds them there. After a signal the process
/// exits.
async fn embed(
    extractor: &Extractor,
    files: &[NamedFile],
    image: &ImageOptions,
    options: &EmbedOptions,
    output: &EmbedOutput,
) -> anyhow::Result<Outcome> {
    let engine = extractor.engine();
    options.check(engine.spec())?;
    let settings = Settings {
        version: env!("CARGO_PKG_VERSION"),
        fingerprint: engine.fingerprint(),
        preprocessing: image.overrides.over(&engine.spec().embed_preprocessing()),
        pooling: options.pooling,
        layers: options.layers,
        normalize: options.normalize,
    };
    // What goes to standard output cannot be continued.
    let deferred = output.file().map(|_| defer_exit());
    let partial = output
        .file()
        .map(|file| PartialResults::open(file, &settings));
    let mut partial = partial.transpose()?;
    // Read before the file itself: a later change is noticed.
    let identities: Vec<_> = files
        .iter()
        .map(|file| FileIdentity::of(&file.path))
        .collect();
    let mut results = Vec::with_capacity(files.len());
    let mut missing = Vec::new();
    for (index, (file, identity)) in files.iter().zip(&identities).enumerate() {
        let known = partial.as_ref().zip(*identity);
        let known = known.and_then(|(partial, identity)| partial.get(&file.name, identity));
        if known.is_none() {
            missing.push(index);
        }
        results.push(known.map(|vector| Ok(vector.to_vec())));
    }

    let total = files.len() as u64;
    let earlier = files.len() - missing.len();
    let mut done = earlier as u64;
    let mut dim_images = 0;
    let mut progress = Progress::new(Unit::Items);
    progress.show("embedding", done, Some(total));
    let paths: Vec<&Path> = missing
        .iter()
        .map(|&index| files[index].path.as_path())
        .collect();
    embed_files(extractor, &paths, image, options, |position, result| {
        let index = missing[position];
        let result = result.map(|FileVector { vector, is_dim }| {
            dim_images += usize::from(is_dim);
            vector
        });
        if let (Ok(vector), Some(partial), Some(identity)) =
            (&result, &mut partial, identities[index])
        {
            partial.add(&files[index].name, identity, vector)?;
        }
        results[index] = Some(result);
        done += 1;
        progress.show("embedding", done, Some(total));
        Ok(())
    })
    .await?;
    drop(progress);
    if deferred.is_some() && is_interrupted() {
        if let Some(partial) = &mut partial {
            partial.sync()?;
        }
        eprintln!(
            "stopped: {done} of {} done; the same command goes on from there",
            plural(total, "image")
        );
        interrupt::exit();
    }
    Ok(Outcome {
        results,
        partial,
        earlier,
        dim_images,
    })
}
