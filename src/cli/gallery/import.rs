//! `dinoserve gallery import DIR|FILE.csv|FILE.jsonl`.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Instant, vec};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;

use super::{
    image_list::{ImageList, ListedImage},
    selection::OneGallery,
};
use crate::{
    cli::{
        executor::block_on,
        flags::EmbedFlags,
        output::{exit_code, print_failures},
        progress::{Progress, Unit},
    },
    error::{Error, Result},
    gallery::{Gallery, OpenMode, Parts, Written},
    service::{
        Extractor, Galleries, GalleryLimits, InputOptions, NewEntry, OnConflict, QueryInput,
    },
};

/// Maximum number of images in a transaction.
const BATCH_IMAGES: usize = 64;
/// Size of the files of a transaction, in bytes, from which on no further file is added.
const BATCH_BYTES: usize = 64 << 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// Folder of images, whose first subfolder is the label and whose path below the folder is the
    /// id; or a list with the columns path, id, label, metadata as .csv (with a header, metadata as
    /// JSON) or .jsonl, with paths relative to the list
    source: PathBuf,

    #[command(flatten)]
    gallery: OneGallery,

    /// Store items again whose id is in the gallery; without this flag they are skipped
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    embed: EmbedFlags,
}

/// Outcomes of the images so far.
#[derive(Default)]
struct ImportCounts {
    stored: usize,
    replaced: usize,
    skipped: usize,
    failures: Vec<(String, Error)>,
}

impl ImportCounts {
    fn done(&self) -> usize {
        self.stored + self.replaced + self.skipped + self.failures.len()
    }
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let ImageList { images, failures } = ImageList::read(&self.source)?;
        let mut counts = ImportCounts {
            failures,
            ..ImportCounts::default()
        };
        let mut started = Instant::now();
        let finished = block_on(async {
            let store = self.gallery.open(OpenMode::Serve).await?;
            let finished = self
                .embed
                .with_extractor(async |extractor| {
                    let galleries = Galleries::new(store.clone(), GalleryLimits::default());
                    started = Instant::now();
                    // A signal drops the work in progress; its transaction commits as a whole or
                    // not at all.
                    let finished = tokio::select! {
                        stored = self.store_all(&extractor, &galleries, images, &mut counts) => {
                            stored.map(|()| true)
                        }
                        _ = tokio::signal::ctrl_c() => Ok(false),
                    };
                    store.close().await;
                    Ok(finished)
                })
                .await?;
            Ok(finished)
        })?;
        let resume = format!(
            "{} images were stored before; the same command goes on from there",
            counts.stored
        );
        if !finished.with_context(|| resume.clone())? {
            eprintln!("stopped: {resume}");
            return Ok(ExitCode::from(130));
        }
        self.report(&counts, started.elapsed().as_secs_f64())
    }

    async fn store_all(
        &self,
        extractor: &Extractor,
        galleries: &Galleries,
        images: Vec<ListedImage>,
        counts: &mut ImportCounts,
    ) -> anyhow::Result<()> {
        let name = &self.gallery.name;
        let options = InputOptions {
            image: self.embed.vector.image_options(),
            vectors: self.embed.vector.vector_options(),
        };
        extractor.engine().ready().await?;
        // Options that do not fit the gallery are reported before any image is read.
        galleries
            .binding_to_write(extractor, name, &options, true)
            .await?;
        let total = Some((counts.done() + images.len()) as u64);
        let mut progress = Progress::new(Unit::Items);
        let store = galleries.store();
        let on_conflict = match self.replace {
            true => OnConflict::Replace,
            false => OnConflict::Skip,
        };
        let mut images = images.into_iter();
        loop {
            let (paths, entries) = self.next_batch(store, &mut images, counts).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let inserted = galleries
                .insert(extractor, name, entries, &options, on_conflict)
                .await?;
            for (path, outcome) in paths.into_iter().zip(inserted.value.outcomes) {
                match outcome {
                    Ok(Written::Created { .. }) => counts.stored += 1,
                    Ok(Written::Replaced { .. }) => counts.replaced += 1,
                    Ok(Written::Kept { .. }) => counts.skipped += 1,
                    Err(error) => counts.failures.push((path, error)),
                }
            }
            progress.show("importing", counts.done() as u64, total);
        }
    }

    /// Reads the next files to store, and returns them with their paths; nothing at the end.
    async fn next_batch(
        &self,
        store: &Gallery,
        images: &mut vec::IntoIter<ListedImage>,
        counts: &mut ImportCounts,
    ) -> Result<(Vec<String>, Vec<NewEntry>)> {
        let name = &self.gallery.name;
        let may_be_stored = store.gallery(name).await?.is_some() && !self.replace;
        let mut paths = Vec::new();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < BATCH_IMAGES && bytes < BATCH_BYTES {
            let Some(image) = images.next() else { break };
            if may_be_stored && store.get(name, &image.id, Parts::NONE).await?.is_some() {
                counts.skipped += 1;
                continue;
            }
            let path = image.path.display().to_string();
            match tokio::fs::read(&image.path).await {
                Ok(file) => {
                    bytes += file.len();
                    paths.push(path);
                    entries.push(NewEntry {
                        id: image.id,
                        label: image.label,
                        metadata: image.metadata,
                        input: QueryInput::Image(Bytes::from(file)),
                    });
                }
                Err(error) => counts.failures.push((path, Error::io("reading", error))),
            }
        }
        Ok((paths, entries))
    }

    fn report(&self, counts: &ImportCounts, seconds: f64) -> anyhow::Result<ExitCode> {
        writeln!(
            std::io::stdout(),
            "{} images stored in `{}`, {} replaced, {} were there already; {seconds:.1} s ({:.1} \
             images/s)",
            counts.stored,
            self.gallery.name,
            counts.replaced,
            counts.skipped,
            (counts.stored + counts.replaced) as f64 / seconds
        )?;
        print_failures("could not be stored", &counts.failures)?;
        let failures = counts.failures.len();
        Ok(exit_code(failures == 0 || counts.done() > failures))
    }
}
