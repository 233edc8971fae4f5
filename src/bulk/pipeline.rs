//! From a listing to results in its order: files are read ahead, prepared on all cores, and
//! inferred.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use parking_lot::Mutex;
use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle};

use super::{
    journal::{Journal, Recalled},
    memory::Memory,
    row::{Record, Schema},
    saved::Saved,
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    service::{Extractor, ImageOptions, SeveralFeatures, SeveralOptions, Timed},
    sources::{Identity, Listed, SkippedFiles, SourceImage},
};

/// How far files are read ahead of the model.
#[derive(Debug, Clone, Copy)]
pub struct ReadAhead {
    /// Maximum number of files.
    pub files: usize,
    /// Maximum number of bytes. A larger file is read alone.
    pub bytes: u64,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self {
            files: 32,
            bytes: 64 << 20,
        }
    }
}

/// Computes features of many images.
pub struct Pipeline<'a> {
    /// What computes.
    pub extractor: &'a Extractor,
    /// How images are prepared.
    pub image: ImageOptions,
    /// What is computed.
    pub options: SeveralOptions,
    /// How it is kept.
    pub schema: &'a Schema,
    /// How far files are read ahead.
    pub read_ahead: ReadAhead,
}

/// What a run has done.
#[derive(Debug, Default)]
pub struct Summary {
    /// Images that are embedded by this run.
    pub embedded: u64,
    /// Images whose results an earlier run had.
    pub recalled: u64,
    /// Those of this run that are nearly black.
    pub dim_images: usize,
    /// Files that are no images.
    pub skipped: SkippedFiles,
}

/// Something that is listed, on its way to a result.
enum Step<T> {
    Done(Done),
    Work(T),
}

/// What has become of something that is listed.
enum Done {
    Record {
        record: Record,
        identity: Option<Identity>,
        origin: Origin,
    },
    /// A file that is no image: its kind, and what to do with it, if that is known.
    Skipped(String, Option<&'static str>),
}

/// Where a result is from.
enum Origin {
    New {
        is_dim: bool,
    },
    /// The journal has it at its place.
    InPlace,
    /// The journal has it at another place.
    Moved,
}

/// A file that is read, or the reason why it is not.
struct ReadFile {
    image: Box<SourceImage>,
    identity: Option<Identity>,
    file: Result<Bytes>,
    /// Holds the memory until the features are computed.
    _memory: OwnedSemaphorePermit,
}

impl Pipeline<'_> {
    /// Adds the results of all that is listed to the journal, in its order, passes each to `show`,
    /// and copies the journal to a store from time to time. Ends early when `stopped` resolves.
    ///
    /// # Errors
    /// What is wrong with the listing, the options, the model or the store, but not with an image:
    /// that is a result.
    pub async fn run(
        &self,
        listing: BoxStream<'static, Result<Listed>>,
        journal: &mut Journal,
        mut saved: Option<&mut Saved>,
        stopped: impl Future<Output = ()>,
        mut show: impl FnMut(Shown<'_>) -> Result<()>,
    ) -> Result<Summary> {
        let mut summary = Summary::default();
        // Locked for moments by one thread: by the listing ahead, and by the results behind.
        let journal = Mutex::new(journal);
        let done = self.results(listing, &journal).take_until(stopped);
        let mut done = pin!(done);
        while let Some(done) = done.try_next().await? {
            summary.take(done, &mut journal.lock(), &mut show)?;
            let Some(saved) = saved.as_mut().filter(|saved| saved.is_due()) else {
                continue;
            };
            loop {
                let part = saved.next_part(&journal.lock())?;
                let Some(part) = part else {
                    break;
                };
                saved.upload(part).await?;
            }
        }
        Ok(summary)
    }

    /// Returns what becomes of all that is listed, in its order.
    fn results(
        &self,
        listing: BoxStream<'static, Result<Listed>>,
        journal: &Mutex<&mut Journal>,
    ) -> impl Stream<Item = Result<Done>> {
        let memory = Memory::new(self.read_ahead.bytes);
        listing
            .map(move |listed| step(listed?, &mut journal.lock()))
            // In the order of the listing, so that the first image gets its memory first.
            .then(move |step| {
                let memory = memory.clone();
                async move {
                    let (image, identity) = match step? {
                        Step::Done(done) => return Ok(Step::Done(done)),
                        Step::Work(image) => image,
                    };
                    let memory = memory.take(image.size()).await?;
                    // A task, so that reading goes on while results are handled.
                    Ok(Step::Work(tokio::spawn(async move {
                        let file = image.read().await;
                        ReadFile {
                            image,
                            identity,
                            file,
                            _memory: memory,
                        }
                    })))
                }
            })
            .map(async |step: Result<Step<JoinHandle<ReadFile>>>| {
                Ok(match step? {
                    Step::Done(done) => Step::Done(done),
                    Step::Work(reading) => Step::Work(reading.await.internal("reading a file")?),
                })
            })
            .buffered(self.read_ahead.files.max(1))
            .map(async |step: Result<Step<ReadFile>>| match step? {
                Step::Done(done) => Ok(done),
                Step::Work(file) => self.make(file).await,
            })
            .buffered(self.extractor.engine().max_concurrent_images())
    }

    /// Computes the features of a file.
    async fn make(&self, file: ReadFile) -> Result<Done> {
        let ReadFile {
            image,
            identity,
            file,
            _memory,
        } = file;
        let (record, is_dim) = match self.features(file).await {
            Ok(made) => {
                let is_dim = made.stages.has_dim_image;
                let SourceImage { id, label, .. } = *image;
                (Record::Row(self.schema.row(id, label, &made.value)), is_dim)
            }
            Err(error) if !error.kind().is_about_image() => {
                return Err(error.context(&image.origin));
            }
            Err(error) => (Record::failed(image.id, &error), false),
        };
        Ok(Done::Record {
            record,
            identity,
            origin: Origin::New { is_dim },
        })
    }

    async fn features(&self, file: Result<Bytes>) -> Result<Timed<SeveralFeatures>> {
        let file = file?;
        let features = |file| self.extractor.several(file, &self.image, &self.options);
        match features(file.clone()).await {
            // Once more, as another image may have been the reason.
            Err(error) if error.kind() == Kind::Internal => features(file).await,
            result => result,
        }
    }
}

/// A result that is in the journal now.
pub struct Shown<'a> {
    /// The result.
    pub record: &'a Record,
    /// Number of results so far.
    pub count: u64,
    /// Whether it was computed by this run.
    pub is_new: bool,
}

/// Looks up what an earlier run found.
fn step(
    listed: Listed,
    journal: &mut Journal,
) -> Result<Step<(Box<SourceImage>, Option<Identity>)>> {
    let (name, identity) = match &listed {
        Listed::Image(image) => (image.id.as_str(), image.identity()),
        Listed::Failed { name, .. } => (name.as_str(), None),
        Listed::Skipped { kind, advice, .. } => {
            return Ok(Step::Done(Done::Skipped(kind.clone(), *advice)));
        }
    };
    let (record, origin) = match journal.recall(name, identity.as_ref())? {
        Recalled::InPlace(record) => (record, Origin::InPlace),
        Recalled::Moved(record) => (record, Origin::Moved),
        Recalled::Unknown => match listed {
            Listed::Image(image) => return Ok(Step::Work((image, identity))),
            Listed::Failed { name, error } => {
                (Record::failed(name, &error), Origin::New { is_dim: false })
            }
            Listed::Skipped { .. } => return Err(Error::internal("a skipped file was looked up")),
        },
    };
    Ok(Step::Done(Done::Record {
        record,
        identity,
        origin,
    }))
}

impl Summary {
    /// Adds a result to the journal and counts it.
    fn take(
        &mut self,
        done: Done,
        journal: &mut Journal,
        show: &mut impl FnMut(Shown<'_>) -> Result<()>,
    ) -> Result<()> {
        let (record, identity, origin) = match done {
            Done::Skipped(kind, advice) => {
                self.skipped.add(kind, advice);
                return Ok(());
            }
            Done::Record {
                record,
                identity,
                origin,
            } => (record, identity, origin),
        };
        let is_row = u64::from(matches!(record, Record::Row(_)));
        let is_new = match origin {
            Origin::New { is_dim } => {
                self.embedded += is_row;
                self.dim_images += usize::from(is_dim);
                true
            }
            Origin::InPlace | Origin::Moved => {
                self.recalled += is_row;
                false
            }
        };
        if !matches!(origin, Origin::InPlace) {
            journal.add(identity, &record)?;
        }
        show(Shown {
            record: &record,
            count: journal.records(),
            is_new,
        })
    }
}
