//! `dinoserve gallery import SOURCE…`.

use std::{
    collections::HashSet,
    io::{self, Write},
    pin::{Pin, pin},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, stream::BoxStream};

use super::{
    entry::Entry,
    fill::{BATCH_ITEMS, FillFlags, Filling, Prepared, StoredCounts},
    server::{REQUEST_TIME, Server, ServerFlags},
    upload::{AT_ONCE, Sent, Upload},
};
use crate::{
    cli::{
        executor::block_on,
        interrupt::{self, defer_exit, interrupted, is_interrupted},
        output::{describe, exit_code, print_dim, print_unused},
        pace::short_number,
        progress::{Progress, Unit},
    },
    error::{Error, Result},
    gallery::OpenMode,
    names::plural,
    service::{Extractor, Galleries, GalleryLimits},
    sources::{Listed, Listing, Shard, SkippedFiles},
};

/// Time after which items are stored although their transaction has room for more.
const BATCH_TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// Folder of images, whose first subfolder is the label and whose path below the folder is the
    /// id; a list with the columns path, id, label, metadata as `.csv` (with a header, metadata as
    /// JSON) or `.jsonl`, with paths relative to the list; a single image; `-` for a list on
    /// standard input, whose lines are paths or those of a `.jsonl`; or any other source of
    /// `dinoserve embed`. With --server, the server's model makes the vectors, and not --model
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// Column of the images in Parquet files, as bytes or as paths [default: image, bytes, path, …]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    #[command(flatten)]
    server: ServerFlags,

    #[command(flatten)]
    fill: FillFlags,
}

/// Outcomes of the images so far.
#[derive(Default)]
struct ImportCounts {
    items: StoredCounts,
    /// Those of the skipped whose file is newer than the item.
    newer: usize,
    /// Images of this run that are nearly black.
    dim_images: usize,
    failures: Vec<(String, Error)>,
    /// Files that are no images.
    no_images: SkippedFiles,
}

impl ImportCounts {
    fn done(&self) -> usize {
        self.items.done() + self.failures.len()
    }
}

/// What has become of something that is listed.
enum Outcome {
    Prepared(Prepared),
    Failed(String, Error),
    NoImage(String, Option<&'static str>),
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut counts = ImportCounts::default();
        if let Some(server) = self.server.server(Some(REQUEST_TIME)) {
            let started = Instant::now();
            block_on(async {
                let _deferred = defer_exit();
                let finished = self.send_all(server, &mut counts).await;
                self.end(finished, &counts)
            })?;
            return self.report(&counts, started.elapsed().as_secs_f64());
        }
        let mut started = Instant::now();
        block_on(self.fill.embed.with_extractor(async |extractor| {
            let listing = Listing::open(&self.sources, self.column.as_deref()).await?;
            let mut listed = listing.list(Shard::WHOLE).peekable();
            // What is wrong with the first source leaves no folder of galleries behind.
            if let Some(Err(_)) = Pin::new(&mut listed).peek().await
                && let Some(first) = listed.next().await
            {
                first?;
            }
            // A model that cannot run leaves no folder of galleries behind.
            extractor.engine().ready().await?;
            let _deferred = defer_exit();
            let new_folders = self.fill.gallery.new_folders();
            let store = self.fill.gallery.open(OpenMode::Serve).await?;
            let galleries = Galleries::new(store, GalleryLimits::default());
            started = Instant::now();
            let finished = self
                .store_all(&extractor, &galleries, listed.boxed(), &mut counts)
                .await;
            galleries.store().close().await;
            drop(galleries);
            if counts.items.stored == 0 {
                new_folders.remove();
            }
            self.end(finished, &counts)
        }))?;
        self.report(&counts, started.elapsed().as_secs_f64())
    }

    /// Says after an interruption or an error what was stored, and how to go on.
    fn end(&self, finished: anyhow::Result<()>, counts: &ImportCounts) -> anyhow::Result<()> {
        let images = plural(counts.items.stored + counts.items.replaced, "image");
        let resume = match self.fill.replace {
            true => {
                format!("{images} stored; without --replace the command goes on from there")
            }
            false => format!("{images} stored; the same command goes on from there"),
        };
        if is_interrupted() {
            match &finished {
                Ok(()) => eprintln!("stopped: {resume}"),
                Err(error) => eprintln!("stopped: {}; {resume}", describe(error)),
            }
            interrupt::exit();
        }
        finished.context(resume)
    }

    /// Sends the images to a server.
    async fn send_all(&self, server: Server, counts: &mut ImportCounts) -> anyhow::Result<()> {
        let name = &self.fill.gallery.name;
        let vector = &self.fill.embed.run.vector;
        let upload = Upload::new(server, name, vector, self.fill.replace);
        upload.check().await?;
        let listing = Listing::open(&self.sources, self.column.as_deref()).await?;
        let mut progress = Progress::new(Unit::Items);
        progress.show("sending", 0, None);
        let mut ids = HashSet::new();
        // After a signal, the images that are being sent are finished.
        let sent = listing
            .list(Shard::WHOLE)
            .take_until(interrupted())
            .map(|listed| listed.map(|listed| Entry::new(listed, &mut ids)))
            .map(|entry| upload.send(entry))
            .buffered(AT_ONCE);
        let mut sent = pin!(sent);
        while let Some(sent) = sent.next().await {
            match sent? {
                Sent::Stored { is_new, is_dim } => {
                    counts.items.stored += usize::from(is_new);
                    counts.items.replaced += usize::from(!is_new);
                    counts.dim_images += usize::from(is_dim);
                }
                Sent::Present { is_newer } => {
                    counts.items.skipped += 1;
                    counts.newer += usize::from(is_newer);
                    progress.skip();
                }
                Sent::Failed(name, error) => counts.failures.push((name, error)),
                Sent::NoImage(kind, advice) => counts.no_images.add(kind, advice),
            }
            progress.show("sending", counts.done() as u64, None);
        }
        Ok(())
    }

    async fn store_all(
        &self,
        extractor: &Extractor,
        galleries: &Galleries,
        listed: BoxStream<'static, Result<Listed>>,
        counts: &mut ImportCounts,
    ) -> anyhow::Result<()> {
        // Options that do not fit the gallery are reported before any image is read.
        let filling = Filling::new(extractor, galleries, &self.fill).await?;
        let mut progress = Progress::new(Unit::Items);
        progress.show("importing", 0, None);
        let mut ids = HashSet::new();
        // After a signal, images in progress are finished and stored.
        let items = listed
            .take_until(interrupted())
            .map(|listed| listed.map(|listed| Entry::new(listed, &mut ids)))
            .map(|entry| prepare(&filling, entry))
            .buffered(extractor.engine().max_concurrent_images());
        let mut items = pin!(items);
        let mut batch = Vec::new();
        let mut committed = Instant::now();
        while let Some(outcome) = items.next().await {
            match outcome? {
                Outcome::Prepared(Prepared::Item { item, is_dim }) => {
                    batch.push(*item);
                    counts.dim_images += usize::from(is_dim);
                }
                Outcome::Prepared(Prepared::Present { is_newer }) => {
                    counts.items.skipped += 1;
                    counts.newer += usize::from(is_newer);
                    progress.skip();
                }
                Outcome::Failed(path, error) => counts.failures.push((path, error)),
                Outcome::NoImage(kind, advice) => counts.no_images.add(kind, advice),
            }
            if batch.len() >= BATCH_ITEMS || committed.elapsed() >= BATCH_TIME {
                counts
                    .items
                    .add(filling.store(std::mem::take(&mut batch)).await?);
                committed = Instant::now();
            }
            progress.show("importing", (counts.done() + batch.len()) as u64, None);
        }
        counts.items.add(filling.store(batch).await?);
        Ok(())
    }

    fn report(&self, counts: &ImportCounts, seconds: f64) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout();
        writeln!(
            out,
            "{} stored in `{}`, {} replaced, {} already there; {seconds:.1} s ({} images/s)",
            plural(counts.items.stored, "image"),
            self.fill.gallery.name,
            counts.items.replaced,
            counts.items.skipped,
            short_number((counts.items.stored + counts.items.replaced) as f64 / seconds)
        )?;
        if counts.newer > 0 {
            writeln!(
                out,
                "{} changed after being stored; --replace stores all again",
                plural(counts.newer, "file")
            )?;
        }
        print_dim(&mut out, counts.dim_images, " in a new gallery")?;
        print_unused(&mut out, &counts.no_images, "stored", &counts.failures)?;
        Ok(exit_code(counts.failures.is_empty()))
    }
}

/// Makes the item of an image, unless it is stored already.
async fn prepare(filling: &Filling<'_>, entry: Result<Entry>) -> Result<Outcome> {
    let entry = match entry? {
        Entry::Image(entry) => entry,
        Entry::Failed(name, error) => return Ok(Outcome::Failed(name, error)),
        Entry::NoImage(kind, advice) => return Ok(Outcome::NoImage(kind, advice)),
    };
    let origin = entry.image.origin.clone();
    match filling.prepare(entry).await {
        Ok(prepared) => Ok(Outcome::Prepared(prepared)),
        Err(error) if error.kind().is_about_image() => Ok(Outcome::Failed(origin, error)),
        // The command ends, and goes on from there when it is run again.
        Err(error) => Err(error),
    }
}
