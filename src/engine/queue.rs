//! Jobs on their way to the workers: a bounded channel, and the batches that workers take out of it.
//!
//! There is no thread and no timer between them. A worker that has nothing to do waits for a job and takes it at once,
//! so a lone request pays nothing for batching; while all workers are busy, jobs gather, and the next worker takes the
//! oldest and all that fit it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{Features, Input, Wanted};
use crate::error::Result;

/// Patches of a batch, above which it takes no more images: 128 of 224×224, or 23 of 518×518. Keeps the memory of a
/// batch of large images within that of a batch of small ones.
const MAX_BATCH_PATCHES: usize = 32_768;

/// What comes back: the features of the image, and the image.
pub(super) type Reply = oneshot::Sender<Result<(Input, Features)>>;

/// An image that waits for the model.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) wanted: Wanted,
    pub(super) queued: Instant,
    pub(super) reply: Reply,
}

/// A job in the queue, and its place there, which is free again when a worker takes the job or the job is dropped.
struct Waiting {
    job: Job,
    _place: OwnedSemaphorePermit,
}

/// The end of the queue that jobs are put in. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Waiting>,
    // The channel itself has no bound; these places are it. A job that a batcher has seen but not taken has left the
    // channel and still holds its place.
    places: Arc<Semaphore>,
    depth: usize,
}

impl Queue {
    /// A queue in which `depth` jobs may wait, and the end that workers take them from.
    pub(super) fn new(depth: usize) -> (Self, Batcher) {
        let depth = depth.clamp(1, Semaphore::MAX_PERMITS);
        let (sender, receiver) = mpsc::unbounded_channel();
        let line = Mutex::new(Line { receiver, waiting: VecDeque::new() });
        let queue = Self { sender, places: Arc::new(Semaphore::new(depth)), depth };
        (queue, Batcher { line, idle: AtomicUsize::new(0) })
    }

    /// Puts a job in when there is a place. `None` if there are no workers any more.
    pub(super) async fn put(&self, input: Input, wanted: Wanted, reply: Reply) -> Option<()> {
        let queued = Instant::now();
        let _place = self.places.clone().acquire_owned().await.ok()?;
        self.sender.send(Waiting { job: Job { input, wanted, queued, reply }, _place }).ok()
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.depth - self.places.available_permits()
    }
}

/// The end of the queue that all workers of an engine take their batches from.
pub(super) struct Batcher {
    line: Mutex<Line>,
    /// Workers that wait for a batch.
    idle: AtomicUsize,
}

struct Line {
    receiver: mpsc::UnboundedReceiver<Waiting>,
    /// Jobs that have left the channel, oldest first: looked through for those of one grid.
    waiting: VecDeque<Waiting>,
}

impl Batcher {
    /// The next batch: the oldest job, and up to `most` in all of its grid. Waits only while there is no job at all.
    ///
    /// Workers that are idle together share what is there, so that no core sleeps while another has a long batch.
    /// `None` when the queue is closed and empty.
    pub(super) fn next(&self, most: usize) -> Option<Vec<Job>> {
        self.idle.fetch_add(1, Ordering::Relaxed);
        // The lock is held while waiting: another idle worker has nothing to do but to wait, too.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let found = line.gather();
        let idle = self.idle.fetch_sub(1, Ordering::Relaxed);
        found.then(|| line.take(most, idle))
    }
}

impl Line {
    /// Waits until there is at least one job whose client is still there. False if there will be none.
    fn gather(&mut self) -> bool {
        loop {
            while let Ok(waiting) = self.receiver.try_recv() {
                self.waiting.push_back(waiting);
            }
            self.waiting.retain(|waiting| !waiting.job.reply.is_closed());
            if !self.waiting.is_empty() {
                return true;
            }
            match self.receiver.blocking_recv() {
                Some(waiting) => self.waiting.push_back(waiting),
                None => return false,
            }
        }
    }

    fn take(&mut self, most: usize, idle: usize) -> Vec<Job> {
        let Some(grid) = self.waiting.front().map(|oldest| oldest.job.input.grid) else { return Vec::new() };
        let alike = self.waiting.iter().filter(|waiting| waiting.job.input.grid == grid).count();
        let fitting = MAX_BATCH_PATCHES / grid.patches().max(1);
        let count = alike.div_ceil(idle.max(1)).min(most).min(fitting).max(1);
        let mut batch = Vec::with_capacity(count);
        let mut index = 0;
        while batch.len() < count && index < self.waiting.len() {
            if self.waiting[index].job.input.grid == grid {
                batch.extend(self.waiting.remove(index).map(|waiting| waiting.job));
            } else {
                index += 1;
            }
        }
        batch
    }
}
