//! `dinoserve gallery ingest --from nats://…`: stores images as they arrive in a stream.

mod address;
mod message;
mod queue;

use std::{
    io::{self, Write},
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use futures_util::{Stream, StreamExt};
use tokio::time::timeout_at;

use self::{
    address::StreamAddress,
    message::image_of_message,
    queue::{Access, Held, Queue},
};
use super::fill::{BATCH_ITEMS, FillFlags, Filling, Prepared, StoredCounts};
use crate::{
    cli::{
        executor::block_on,
        interrupt::{defer_exit, interrupted, is_interrupted},
        output::{exit_code, print_dim},
        pace::short_number,
        progress::{Progress, Unit},
    },
    error::{Error, Kind, Result},
    gallery::{NewItem, OpenMode},
    names::plural,
    service::{Extractor, Galleries, GalleryLimits},
    sources::Place,
};

/// Time for which an item waits for others of its transaction.
const BATCH_TIME: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(in crate::cli) struct Ingest {
    /// Stream of NATS JetStream: nats://[USER:PASSWORD@]HOST[:PORT][,HOST…]/STREAM[/CONSUMER], with
    /// TLS tls://…. The consumer is created if it does not exist [default: dinoserve-NAME]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "DINOSERVE_FROM",
        hide_env_values = true
    )]
    from: String,

    /// File with credentials of NATS (.creds)
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,

    /// Certificates of the authority of the servers, as PEM
    #[arg(long, value_name = "FILE")]
    root_certificates: Option<PathBuf>,

    /// Folder or address of a prefix that has the relative paths in messages
    #[arg(long, value_name = "FOLDER")]
    root: Option<String>,

    /// Subject of a stream that takes messages that can never be stored; they are dropped otherwise
    #[arg(long, value_name = "SUBJECT")]
    rejected: Option<String>,

    /// End when all messages are stored, and not only after a signal
    #[arg(long)]
    until_empty: bool,

    #[command(flatten)]
    fill: FillFlags,
}

/// Outcomes of the messages so far.
#[derive(Default)]
struct IngestCounts {
    items: StoredCounts,
    rejected: usize,
    dim_images: usize,
}

/// What has become of a message.
enum Outcome {
    Item(Box<NewItem>, bool),
    Present,
    Rejected(Error),
    Later(Error),
}

/// Items whose messages are acknowledged once they are stored.
#[derive(Default)]
struct Batch {
    items: Vec<NewItem>,
    messages: Vec<Held>,
    /// When they are stored at the latest.
    due: Option<tokio::time::Instant>,
}

impl Ingest {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let address: StreamAddress = self.from.parse()?;
        let root = self.root.as_deref().map(Place::parse).transpose()?;
        let mut counts = IngestCounts::default();
        let mut started = Instant::now();
        block_on(self.fill.embed.with_extractor(async |extractor| {
            let access = Access {
                credentials: self.credentials.as_deref(),
                certificates: self.root_certificates.as_deref(),
            };
            let consumer = format!("dinoserve-{}", self.fill.gallery.name);
            let queue = Queue::open(&address, &access, &consumer, self.rejected.clone()).await?;
            extractor.engine().ready().await?;
            let _deferred = defer_exit();
            let store = self.fill.gallery.open(OpenMode::Serve).await?;
            let galleries = Galleries::new(store, GalleryLimits::default());
            started = Instant::now();
            let finished = self
                .store_all(&extractor, &galleries, &queue, root.as_ref(), &mut counts)
                .await;
            queue.close().await;
            galleries.store().close().await;
            drop(galleries);
            Ok(finished?)
        }))?;
        self.report(&counts, started.elapsed().as_secs_f64())?;
        // A signal is the normal end of a service.
        Ok(exit_code(is_interrupted() || counts.rejected == 0))
    }

    async fn store_all(
        &self,
        extractor: &Extractor,
        galleries: &Galleries,
        queue: &Queue,
        root: Option<&Place>,
        counts: &mut IngestCounts,
    ) -> Result<()> {
        let filling = Filling::new(extractor, galleries, &self.fill).await?;
        let concurrent = extractor.engine().max_concurrent_images();
        // After a signal, images in progress are finished and stored.
        let outcomes = queue
            .messages(concurrent, self.until_empty)
            .take_until(interrupted())
            .map(|held| handle(&filling, held, root))
            .buffered(concurrent);
        let mut batch = Batch::default();
        let ended = take_all(queue, &filling, outcomes, &mut batch, counts).await;
        // What is ready is stored although something else is wrong.
        let stored = counts.store(&filling, &mut batch).await;
        ended.and(stored)
    }

    fn report(&self, counts: &IngestCounts, seconds: f64) -> anyhow::Result<()> {
        let mut out = io::stdout();
        writeln!(
            out,
            "{} stored in `{}`, {} replaced, {} already there, {} rejected; {seconds:.1} s ({} \
             images/s)",
            plural(counts.items.stored, "image"),
            self.fill.gallery.name,
            counts.items.replaced,
            counts.items.skipped,
            counts.rejected,
            short_number((counts.items.stored + counts.items.replaced) as f64 / seconds)
        )?;
        print_dim(&mut out, counts.dim_images, " in a new gallery")?;
        Ok(())
    }
}

/// Stores items in batches until there are no more, and leaves the last one in `batch`.
async fn take_all(
    queue: &Queue,
    filling: &Filling<'_>,
    outcomes: impl Stream<Item = Result<(Held, Outcome)>>,
    batch: &mut Batch,
    counts: &mut IngestCounts,
) -> Result<()> {
    let mut progress = Progress::new(Unit::Items);
    progress.show("ingesting", 0, None);
    let mut outcomes = pin!(outcomes);
    loop {
        let next = match batch.due {
            Some(due) => timeout_at(due, outcomes.next()).await,
            None => Ok(outcomes.next().await),
        };
        let is_due = match next {
            Ok(None) => return Ok(()),
            Ok(Some(outcome)) => {
                let (held, outcome) = outcome?;
                counts.take(queue, held, outcome, batch, &progress).await?;
                batch.items.len() >= BATCH_ITEMS
            }
            Err(_) => true,
        };
        if is_due {
            counts.store(filling, batch).await?;
        }
        progress.show("ingesting", counts.done(), None);
    }
}

/// Makes the item of a message.
///
/// # Errors
/// What keeps all messages from being stored.
async fn handle(
    filling: &Filling<'_>,
    held: Result<Held>,
    root: Option<&Place>,
) -> Result<(Held, Outcome)> {
    let held = held?;
    let outcome = outcome(filling, &held, root).await?;
    Ok((held, outcome))
}

async fn outcome(filling: &Filling<'_>, held: &Held, root: Option<&Place>) -> Result<Outcome> {
    let entry = match image_of_message(held.payload(), held.headers(), held.name(), root) {
        Ok(entry) => entry,
        Err(error) => return Ok(Outcome::Rejected(error)),
    };
    match filling.prepare(entry).await {
        Ok(Prepared::Item { item, is_dim }) => Ok(Outcome::Item(item, is_dim)),
        Ok(Prepared::Present { .. }) => Ok(Outcome::Present),
        Err(error) => match error.kind() {
            Kind::Download => Ok(Outcome::Later(error)),
            // Another image may have been the reason.
            Kind::Internal if held.delivered() < 3 => Ok(Outcome::Later(error)),
            kind if kind.is_about_image() => Ok(Outcome::Rejected(error)),
            _ => Err(error),
        },
    }
}

impl IngestCounts {
    fn done(&self) -> u64 {
        (self.items.done() + self.rejected) as u64
    }

    /// Answers a message, or adds its item to the batch.
    async fn take(
        &mut self,
        queue: &Queue,
        held: Held,
        outcome: Outcome,
        batch: &mut Batch,
        progress: &Progress,
    ) -> Result<()> {
        match outcome {
            Outcome::Item(item, is_dim) => {
                self.dim_images += usize::from(is_dim);
                batch.add(*item, held);
            }
            Outcome::Present => {
                self.items.skipped += 1;
                held.acknowledge().await;
            }
            Outcome::Rejected(error) => {
                self.rejected += 1;
                progress.print(&format!("{} is rejected: {error}", held.name()));
                queue.reject(held, &error).await?;
            }
            Outcome::Later(error) => {
                progress.print(&format!("{} is tried again: {error}", held.name()));
                held.retry_later().await;
            }
        }
        Ok(())
    }

    /// Stores the items of a batch in one transaction and acknowledges their messages.
    async fn store(&mut self, filling: &Filling<'_>, batch: &mut Batch) -> Result<()> {
        let Batch {
            items, messages, ..
        } = std::mem::take(batch);
        self.items.add(filling.store(items).await?);
        for held in messages {
            held.acknowledge().await;
        }
        Ok(())
    }
}

impl Batch {
    fn add(&mut self, item: NewItem, held: Held) {
        self.items.push(item);
        self.messages.push(held);
        self.due
            .get_or_insert_with(|| tokio::time::Instant::now() + BATCH_TIME);
    }
}
