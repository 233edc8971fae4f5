//! Jobs on their way to the workers: a bounded channel, and the thread that makes batches of what comes out of it.
//!
//! There is no timer. A job that finds an idle worker goes to it at once, so a lone request pays nothing for batching;
//! while all workers are busy, jobs gather, and the next idle worker gets the oldest and those that fit it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

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

/// A job that waits, and its place in the queue, which is free again when a worker gets the job or the job is dropped.
pub(super) struct Waiting {
    job: Job,
    _place: OwnedSemaphorePermit,
}

/// What the batcher is told.
pub(super) enum Event {
    /// There is a job.
    Job(Waiting),
    /// The worker of this number has finished its batch.
    Idle(usize),
    /// No more jobs will come.
    Closed,
}

/// Where jobs come in. When it is dropped, what is queued is still done.
#[derive(Debug)]
pub(super) struct Entrance {
    events: mpsc::UnboundedSender<Event>,
    // The channel itself has no bound; these places are it. A job that waits with the batcher still holds its place.
    places: Arc<Semaphore>,
    depth: usize,
}

/// The channel to the batcher, with `depth` places for jobs.
pub(super) fn entrance(depth: usize) -> (Entrance, Events) {
    let depth = depth.clamp(1, Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::unbounded_channel();
    let entrance = Entrance { events: sender.clone(), places: Arc::new(Semaphore::new(depth)), depth };
    (entrance, Events { sender, receiver })
}

/// The batcher's end of the channel, and a sender for its workers.
pub(super) struct Events {
    pub(super) sender: mpsc::UnboundedSender<Event>,
    pub(super) receiver: mpsc::UnboundedReceiver<Event>,
}

impl Entrance {
    /// Puts a job in when there is a place. `None` if there is no engine any more.
    pub(super) async fn put(&self, input: Input, wanted: Wanted, reply: Reply) -> Option<()> {
        let queued = Instant::now();
        let _place = self.places.clone().acquire_owned().await.ok()?;
        self.events.send(Event::Job(Waiting { job: Job { input, wanted, queued, reply }, _place })).ok()
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.depth - self.places.available_permits()
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Closed);
    }
}

/// A worker as the batcher sees it.
pub(super) struct Seat {
    /// Where its batches go.
    pub(super) batches: mpsc::UnboundedSender<Vec<Job>>,
    /// It has a batch.
    pub(super) busy: bool,
}

/// Gives jobs to workers.
pub(super) struct Batcher {
    workers: Vec<Seat>,
    /// The last of them uses all cores, for an image that is alone in the engine.
    last_is_solo: bool,
    /// Most images of a batch.
    most: usize,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
}

impl Batcher {
    pub(super) fn new(workers: Vec<Seat>, last_is_solo: bool, most: usize) -> Self {
        Self { workers, last_is_solo, most, waiting: VecDeque::new() }
    }

    /// Works until no more jobs will come and the last has been given out.
    pub(super) fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut open = true;
        while open || !self.waiting.is_empty() {
            let Some(event) = events.blocking_recv() else { return };
            let mut next = Some(event);
            while let Some(event) = next {
                match event {
                    Event::Job(waiting) => self.waiting.push_back(waiting),
                    Event::Idle(worker) => self.workers[worker].busy = false,
                    Event::Closed => open = false,
                }
                next = events.try_recv().ok();
            }
            // Nobody waits for these any more.
            self.waiting.retain(|waiting| !waiting.job.reply.is_closed());
            while let Some((worker, batch)) = self.assign() {
                self.workers[worker].busy = true;
                // It fails only if the worker's thread is gone, and the jobs with it are answered as such.
                let _ = self.workers[worker].batches.send(batch);
            }
        }
    }

    /// The next worker to get a batch, and the batch.
    fn assign(&mut self) -> Option<(usize, Vec<Job>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let regular = if self.last_is_solo { self.workers.len() - 1 } else { self.workers.len() };
        if self.last_is_solo {
            let nobody_works = self.workers.iter().all(|worker| !worker.busy);
            if nobody_works && self.waiting.len() == 1 {
                return Some((regular, self.take(1)));
            }
            if self.workers[regular].busy {
                // It has all the cores; a second image beside it would slow down both.
                return None;
            }
        }
        let idle = || (0..regular).filter(|&worker| !self.workers[worker].busy);
        let worker = idle().next()?;
        // Idle workers share what is there, so that no core sleeps while another has a long batch.
        let sharing = idle().count();
        Some((worker, self.take(sharing)))
    }

    /// The oldest job and those of its grid, the `sharing`th part of them.
    fn take(&mut self, sharing: usize) -> Vec<Job> {
        let Some(grid) = self.waiting.front().map(|oldest| oldest.job.input.grid) else { return Vec::new() };
        let alike = self.waiting.iter().filter(|waiting| waiting.job.input.grid == grid).count();
        let fitting = MAX_BATCH_PATCHES / grid.patches().max(1);
        let count = alike.div_ceil(sharing).min(self.most).min(fitting).max(1);
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
