//! Write transactions. Puts that arrive while another one is being stored are stored together.
//!
//! A transaction ends with a write to the disk, during which no other one can write to the gallery.
//! The puts of a gallery therefore wait in a queue, and one task stores all that wait in one
//! transaction. Writers of several servers take turns by the lock of the gallery.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::Transaction;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{
    commit,
    connection::Database,
    failure::{Failure, Outcome},
    galleries::{self, Layout},
    tasks::Tasks,
    write,
};
use crate::{
    error::{Error, Kind, Result},
    gallery::{GalleryName, ItemBatch, Written},
};

/// Maximum number of items that are stored together; a batch can have more.
const MAX_ITEMS: usize = 1024;
/// Maximum time that a batch waits for the transactions before its own.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Maximum time to wait for writers whose last batches were stored together: most of them write
/// again at once.
const MAX_PAUSE: Duration = Duration::from_millis(2);
/// Number of writes between cleanups.
const CLEANUP_INTERVAL: u64 = 1024;

/// Runs all writes of a store.
pub(super) struct Writer {
    database: Arc<Database>,
    /// How new galleries are stored.
    layout: Layout,
    /// Stores of batches, which are finished before the store is closed.
    storing: Tasks,
    /// Cleanups.
    tasks: Arc<Tasks>,
    writes: AtomicU64,
    /// Batches that wait, by gallery. A gallery with a task has an entry.
    queues: Mutex<HashMap<GalleryName, Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    arrived: Arc<Notify>,
}

/// A batch, and the caller that waits until it is stored.
struct Waiting {
    batch: ItemBatch,
    since: Instant,
    caller: oneshot::Sender<Result<Vec<Written>>>,
}

impl Writer {
    pub(super) fn new(database: Arc<Database>, layout: Layout, tasks: Arc<Tasks>) -> Self {
        Self {
            database,
            layout,
            storing: Tasks::default(),
            tasks,
            writes: AtomicU64::new(1),
            queues: Mutex::default(),
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Runs `work` in a transaction that holds the locks of `names`, and commits it.
    pub(super) async fn write<T>(
        &self,
        names: &[&GalleryName],
        work: impl AsyncFnOnce(&Transaction<'_>) -> Outcome<T>,
    ) -> Result<T> {
        let (mut connection, _permit) = self.database.writer().await?;
        let transaction = connection.transaction().await.map_err(Failure::from)?;
        galleries::lock(&transaction, names).await?;
        let value = work(&transaction).await?;
        commit::commit(&self.database, transaction).await?;
        let earlier_writes = self.writes.fetch_add(1, Ordering::Relaxed);
        if earlier_writes.is_multiple_of(CLEANUP_INTERVAL) {
            self.clean_up();
        }
        Ok(value)
    }

    /// Drops the tables of removed galleries and the tokens of old writes, in the background.
    pub(super) fn clean_up(&self) {
        let database = Arc::clone(&self.database);
        self.tasks.spawn(async move {
            let cleaned_up = async {
                let mut connection = database.connection().await?;
                galleries::drop_removed(&mut connection).await?;
                commit::forget(&connection).await
            };
            if let Err(failure) = cleaned_up.await {
                let error = Error::from(failure);
                tracing::warn!(%error, "removed galleries are dropped later");
            }
        });
    }

    /// Stores a batch, alone or together with others.
    pub(super) async fn put(
        self: &Arc<Self>,
        name: &GalleryName,
        batch: ItemBatch,
    ) -> Result<Vec<Written>> {
        let (caller, written) = oneshot::channel();
        let waiting = Waiting {
            batch,
            since: Instant::now(),
            caller,
        };
        if self.enqueue(name, waiting) {
            let task = WriteTask {
                writer: Arc::clone(self),
                name: name.clone(),
                owns_queue: true,
            };
            self.storing.spawn(task.run());
        }
        written.await.unwrap_or_else(|_| {
            let detail = "the store was closed; it is not known whether the items were stored";
            Err(Error::new(Kind::Unavailable, detail))
        })
    }

    /// Waits until the batches in the queues are stored, up to a limit.
    pub(super) async fn close(&self) {
        self.storing.finish(MAX_WAIT).await;
    }

    /// Adds a batch to the queue of its gallery. Returns whether the queue is new and needs a task.
    fn enqueue(&self, name: &GalleryName, waiting: Waiting) -> bool {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get_mut(name) {
            queue.waiting.push(waiting);
            queue.arrived.notify_one();
            return false;
        }
        let queue = Queue {
            waiting: vec![waiting],
            ..Queue::default()
        };
        queues.insert(name.clone(), queue);
        true
    }

    /// Stores batches in one transaction, or each in one of its own if one of them prevents that.
    async fn store(&self, name: &GalleryName, mut group: Vec<Waiting>) {
        let batches: Vec<&ItemBatch> = group.iter().map(|waiting| &waiting.batch).collect();
        match self.store_together(name, &batches).await {
            Ok(written) => {
                for (waiting, written) in group.into_iter().zip(written) {
                    // The caller may have left.
                    let _ = waiting.caller.send(Ok(written));
                }
            }
            Err(error) if group.len() > 1 && may_concern_one(error.kind()) => {
                for waiting in group {
                    let stored = self.store_together(name, &[&waiting.batch]).await;
                    let written = stored.map(|written| written.into_iter().flatten().collect());
                    let _ = waiting.caller.send(written);
                }
            }
            Err(error) if group.len() > 1 => {
                let error = Arc::new(error);
                for waiting in group {
                    let error = Error::of_shared(Arc::clone(&error));
                    let _ = waiting.caller.send(Err(error));
                }
            }
            Err(error) => {
                if let Some(waiting) = group.pop() {
                    let _ = waiting.caller.send(Err(error));
                }
            }
        }
    }

    async fn store_together(
        &self,
        name: &GalleryName,
        batches: &[&ItemBatch],
    ) -> Result<Vec<Vec<Written>>> {
        self.write(&[name], async |txn| {
            write::put(txn, name, batches, self.layout).await
        })
        .await
    }
}

/// Returns whether an error may be due to one batch of several. All of them have the same binding.
fn may_concern_one(kind: Kind) -> bool {
    matches!(kind, Kind::Internal | Kind::Io | Kind::StorageFull)
}

/// The task that stores the batches of a gallery until none waits.
struct WriteTask {
    writer: Arc<Writer>,
    name: GalleryName,
    /// Whether the queue of the gallery is this task's. After its end another task may have one.
    owns_queue: bool,
}

impl WriteTask {
    async fn run(mut self) {
        let mut writers = 1;
        while let Some(group) = self.take() {
            let started = Instant::now();
            let stored = group.len();
            self.writer.store(&self.name, group).await;
            writers = stored.max(writers / 2);
            if writers > 1 {
                let pause = MAX_PAUSE.min(started.elapsed() / 2);
                self.wait_for(writers, pause).await;
            }
        }
    }

    /// Waits until `count` batches are in the queue.
    async fn wait_for(&self, count: usize, pause: Duration) {
        let wait = async {
            loop {
                let arrived = {
                    let queues = self.writer.queues.lock();
                    match queues.get(&self.name) {
                        Some(queue) if queue.waiting.len() < count => Arc::clone(&queue.arrived),
                        _ => return,
                    }
                };
                arrived.notified().await;
            }
        };
        let _ = tokio::time::timeout(pause, wait).await;
    }

    /// Takes batches that can be stored together, in their order. Ends the queue if there is none.
    fn take(&mut self) -> Option<Vec<Waiting>> {
        let mut queues = self.writer.queues.lock();
        let queue = queues.get_mut(&self.name)?;
        let waiting = std::mem::take(&mut queue.waiting);
        queue.waiting = waiting.into_iter().filter_map(still_wanted).collect();
        let Some(first) = queue.waiting.first().map(|waiting| &waiting.batch) else {
            queues.remove(&self.name);
            self.owns_queue = false;
            return None;
        };
        let mut items = 0;
        let together = queue.waiting.iter().take_while(|waiting| {
            let batch = &waiting.batch;
            let is_first = items == 0;
            items += batch.items.len().max(1);
            is_first
                || (items <= MAX_ITEMS
                    && batch.keeps_stored == first.keeps_stored
                    && batch.binding == first.binding)
        });
        let count = together.count();
        Some(queue.waiting.drain(..count).collect())
    }
}

impl Drop for WriteTask {
    /// Ends the queue if the task is stopped, so that its callers do not wait forever.
    fn drop(&mut self) {
        if self.owns_queue {
            self.writer.queues.lock().remove(&self.name);
        }
    }
}

/// Returns a batch unless its caller has left, or has waited for too long, which it is informed of.
fn still_wanted(waiting: Waiting) -> Option<Waiting> {
    if waiting.caller.is_closed() {
        return None;
    }
    if waiting.since.elapsed() < MAX_WAIT {
        return Some(waiting);
    }
    let detail = "the gallery's database stores too slowly for all writers; try again shortly";
    let _ = waiting
        .caller
        .send(Err(Error::new(Kind::Overloaded, detail)));
    None
}
