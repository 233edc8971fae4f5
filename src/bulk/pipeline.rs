//! From a listing to results in its order: files are read ahead, prepared on all cores, and
//! inferred.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    journal::{Journal, Recalled},
    row::{Record, Schema},
    saved::Saved,
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    service::{Extractor, ImageOptions, SeveralOptions},
    sources::{Identity, Listed, SkippedFiles, SourceImage},
};

/// Assumed size of a file of unknown size, in bytes.
const UNKNOWN_SIZE: u64 = 1 << 20;
/// Unit of the memory that is counted, so that it fits the semaphore.
const UNIT: u64 = 1 << 10;

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

/// A step of the listing.
enum Step {
    Known(Recalled),
    Read(Box<SourceImage>, Option<Identity>),
    Failed(String, Error),
    Skipped(String, Option<&'static str>),
}

/// What a step has come to.
enum Done {
    Known(Recalled),
    Made {
        identity: Option<Identity>,
        record: Record,
        is_dim: bool,
    },
    Skipped(String, Option<&'static str>),
}

/// A file that is read, or the reason why it is not.
struct ReadFile {
    image: Box<SourceImage>,
    identity: Option<Identity>,
    file: Result<Bytes>,
    /// Holds the memory until the features are computed.
    _memory: OwnedSemaphorePermit,
}

enum Read {
    File(ReadFile),
    Other(Step),
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
        mut show: impl FnMut(&Record, &Journal) -> Result<()>,
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
        let units = self.read_ahead.bytes.div_ceil(UNIT).max(1);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let memory = Arc::new(Semaphore::new(units as usize));
        let concurrency = self.extractor.engine().max_concurrent_images();
        listing
            .map(move |listed| Self::step(listed?, &mut journal.lock()))
            // In the order of the listing, so that the first image gets its memory first.
            .then(move |step| {
                let memory = memory.clone();
                async move {
                    let step = step?;
                    let Step::Read(image, identity) = step else {
                        return Ok((step, None));
                    };
                    let known = identity.as_ref().map_or(0, |identity| identity.bytes);
                    let bytes = if known > 0 { known } else { UNKNOWN_SIZE };
                    let share = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
                    let share = memory.acquire_many_owned(share.min(units)).await;
                    let share = share.internal("memory for reading ahead")?;
                    Ok((Step::Read(image, identity), Some(share)))
                }
            })
            .map(|step: Result<_>| async move {
                match step? {
                    (Step::Read(image, identity), Some(memory)) => {
                        // A task, so that reading goes on while results are handled.
                        let reading = tokio::spawn(async move {
                            let file = image.read().await;
                            ReadFile {
                                image,
                                identity,
                                file,
                                _memory: memory,
                            }
                        });
                        Ok(Read::File(reading.await.internal("reading a file")?))
                    }
                    (step, _) => Ok(Read::Other(step)),
                }
            })
            .buffered(self.read_ahead.files.max(1))
            .map(async |read: Result<Read>| match read? {
                Read::File(file) => self.make(file).await,
                Read::Other(Step::Known(recalled)) => Ok(Done::Known(recalled)),
                Read::Other(Step::Skipped(kind, advice)) => Ok(Done::Skipped(kind, advice)),
                Read::Other(Step::Failed(name, error)) => Ok(Done::Made {
                    identity: None,
                    record: Record::Failed {
                        name,
                        error: error.to_string(),
                    },
                    is_dim: false,
                }),
                Read::Other(Step::Read(..)) => Err(Error::internal("a file was not read")),
            })
            .buffered(concurrency)
    }

    /// Looks up what an earlier run found.
    fn step(listed: Listed, journal: &mut Journal) -> Result<Step> {
        Ok(match listed {
            Listed::Image(image) => {
                let identity = image.identity();
                match journal.recall(&image.id, identity.as_ref())? {
                    Recalled::Unknown => Step::Read(image, identity),
                    recalled => Step::Known(recalled),
                }
            }
            Listed::Failed { name, error } => match journal.recall(&name, None)? {
                Recalled::Unknown => Step::Failed(name, error),
                recalled => Step::Known(recalled),
            },
            Listed::Skipped { kind, advice, .. } => Step::Skipped(kind, advice),
        })
    }

    /// Computes the features of a file.
    async fn make(&self, file: ReadFile) -> Result<Done> {
        let ReadFile {
            image,
            identity,
            file,
            _memory,
        } = file;
        let made = async {
            let file = file?;
            self.extractor
                .several(file, &self.image, &self.options)
                .await
        };
        let (record, is_dim) = match made.await {
            Ok(made) => {
                let is_dim = made.stages.has_dim_image;
                let SourceImage { id, label, .. } = *image;
                (Record::Row(self.schema.row(id, label, &made.value)), is_dim)
            }
            Err(error) if !is_about_image(error.kind()) => {
                return Err(error.context(&image.origin));
            }
            Err(error) => {
                let record = Record::Failed {
                    name: image.id,
                    error: error.to_string(),
                };
                (record, false)
            }
        };
        Ok(Done::Made {
            identity,
            record,
            is_dim,
        })
    }
}

impl Summary {
    /// Adds a result to the journal and counts it.
    fn take(
        &mut self,
        done: Done,
        journal: &mut Journal,
        show: &mut impl FnMut(&Record, &Journal) -> Result<()>,
    ) -> Result<()> {
        let record = match done {
            Done::Skipped(kind, advice) => {
                self.skipped.add(kind, advice);
                return Ok(());
            }
            Done::Known(Recalled::Unknown) => return Ok(()),
            Done::Known(Recalled::InPlace(record)) => {
                self.recalled += u64::from(matches!(record, Record::Row(_)));
                record
            }
            Done::Known(Recalled::Moved(identity, record)) => {
                self.recalled += u64::from(matches!(record, Record::Row(_)));
                journal.add(identity, &record)?;
                record
            }
            Done::Made {
                identity,
                record,
                is_dim,
            } => {
                self.embedded += u64::from(matches!(record, Record::Row(_)));
                self.dim_images += usize::from(is_dim);
                journal.add(identity, &record)?;
                record
            }
        };
        show(&record, journal)
    }
}

/// Whether an error is about the image alone, and would be the same in another run.
fn is_about_image(kind: Kind) -> bool {
    match kind {
        Kind::Malformed
        | Kind::TooLarge
        | Kind::UndecodableImage
        | Kind::LimitExceeded
        | Kind::NotFound
        | Kind::Io => true,
        Kind::InvalidOption
        | Kind::ModelRejected
        | Kind::Conflict
        | Kind::Damaged
        | Kind::StorageFull
        | Kind::Overloaded
        | Kind::Unavailable
        | Kind::Artifact
        | Kind::Download
        | Kind::Internal => false,
    }
}
