//! `dinoserve gallery import DIR|FILE.csv|FILE.jsonl`.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;

use super::{
    OneGallery,
    pictures::{Picture, Pictures},
};
use crate::{
    cli::{
        common::{EngineFlags, LimitFlags, VectorFlags},
        progress::{Progress, Unit},
    },
    error::{Error, Kind, Result},
    gallery::{Gallery, OpenMode, Parts},
    service::{Extractor, ImageOptions, NewEntry, QueryInput, Service, VectorOptions},
    vision::PreprocessingOverrides,
};

/// Images of a transaction, and bytes of their files after which it takes no more.
const BATCH: (usize, usize) = (64, 64 << 20);

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// A folder of images, where the first subfolder of a path is the label and the path below the
    /// folder the id; or a list with the columns path, id, label, metadata as .csv (with a header,
    /// metadata as JSON) or .jsonl, paths relative to the list
    source: PathBuf,

    #[command(flatten)]
    which: OneGallery,

    /// Store again what is there already; without this flag an id that is there is skipped
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    vector: VectorFlags,

    #[command(flatten)]
    engine: EngineFlags,

    #[command(flatten)]
    limits: LimitFlags,
}

/// What became of the pictures so far.
#[derive(Default)]
struct Tally {
    stored: usize,
    replaced: usize,
    skipped: usize,
    bad: Vec<(String, Error)>,
}

impl Tally {
    fn seen(&self) -> usize {
        self.stored + self.replaced + self.skipped + self.bad.len()
    }
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Pictures { good, bad } = Pictures::read(&self.source)?;
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let store = tokio.block_on(self.which.place.open(OpenMode::Serve))?;
        let runtime = self.engine.runtime()?;
        let model = self.engine.model_file()?;
        let (engine, thread) = self.engine.start(&runtime, model)?;
        let service = Service::new(Extractor::new(engine, self.limits.limits(), 0))
            .with_gallery(Some(store.clone()));
        let started = Instant::now();
        let mut tally = Tally {
            bad,
            ..Tally::default()
        };
        let done = tokio.block_on(async {
            let done = tokio::select! {
                done = self.store_all(&service, &store, good, &mut tally) => done.map(|()| true),
                // What is under way is dropped; its transaction takes place as a whole or not at
                // all.
                _ = tokio::signal::ctrl_c() => Ok(false),
            };
            store.close().await;
            done
        });
        drop(service);
        thread.join();
        let stopped = || {
            format!(
                "{} images were stored before; the same command goes on from there",
                tally.stored
            )
        };
        if !done.with_context(stopped)? {
            eprintln!("stopped: {}", stopped());
            return Ok(ExitCode::from(130));
        }
        self.report(&tally, started.elapsed().as_secs_f64())
    }

    async fn store_all(
        &self,
        service: &Service,
        store: &Gallery,
        pictures: Vec<Picture>,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
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
        let vectors = VectorOptions {
            pooling,
            layers,
            ..VectorOptions::default()
        };
        service.engine().ready().await?;
        // What does not fit the gallery is said before any image is read.
        service
            .binding_to_write(&self.which.name, &image, &vectors, true)
            .await?;
        let total = Some((tally.seen() + pictures.len()) as u64);
        let mut progress = Progress::new(Unit::Images);
        let mut pictures = pictures.into_iter();
        loop {
            let (paths, entries) = self.next_batch(store, &mut pictures, tally).await?;
            if entries.is_empty() {
                progress.finish();
                return Ok(());
            }
            let inserted = service
                .insert(&self.which.name, entries, &image, &vectors)
                .await?;
            for (path, outcome) in paths.into_iter().zip(inserted.outcomes) {
                match outcome {
                    Ok(true) => tally.stored += 1,
                    Ok(false) => tally.replaced += 1,
                    Err(error) => tally.bad.push((path, error)),
                }
            }
            progress.show("importing", tally.seen() as u64, total);
        }
    }

    /// The next pictures that are to be stored, with the paths of their files; none when there are
    /// no more.
    async fn next_batch(
        &self,
        store: &Gallery,
        pictures: &mut impl Iterator<Item = Picture>,
        tally: &mut Tally,
    ) -> Result<(Vec<String>, Vec<NewEntry>)> {
        let (mut paths, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        while entries.len() < BATCH.0 && bytes < BATCH.1 {
            let Some(Picture {
                path,
                id,
                label,
                metadata,
            }) = pictures.next()
            else {
                break;
            };
            if !self.replace {
                match store.get(&self.which.name, &id, Parts::NONE).await {
                    Ok(_) => {
                        tally.skipped += 1;
                        continue;
                    }
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            match tokio::fs::read(&path).await {
                Ok(file) => {
                    bytes += file.len();
                    paths.push(path.display().to_string());
                    entries.push(NewEntry {
                        id,
                        label,
                        metadata,
                        input: QueryInput::Image(Bytes::from(file)),
                    });
                }
                Err(error) => tally
                    .bad
                    .push((path.display().to_string(), Error::io("reading", error))),
            }
        }
        Ok((paths, entries))
    }

    fn report(&self, tally: &Tally, seconds: f64) -> anyhow::Result<ExitCode> {
        let Tally {
            stored,
            replaced,
            skipped,
            bad,
        } = tally;
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{stored} images stored in `{}`, {replaced} replaced, {skipped} were there already; {seconds:.1} s ({:.1} images/s)",
            self.which.name,
            (stored + replaced) as f64 / seconds
        )?;
        if bad.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{} could not be stored:", bad.len())?;
        bad.iter()
            .try_for_each(|(path, error)| writeln!(out, "  {path}: {error}"))?;
        Ok(if stored + replaced + skipped == 0 {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}
