//! Jobs on their way to the workers: a bounded channel, and the thread that makes batches of what
//! comes out of it.
//!
//! There is no timer. A job that finds an idle worker goes to it at once, so a lone request pays
//! nothing for batching; while all workers are busy, jobs gather, and the next idle worker gets the
//! oldest and those that fit it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{EnginePlan, EngineState, Features, Input, RequestedOutputs};
use crate::error::Result;

/// Patches of a batch, above which it takes no more images: 128 of 224×224, or 23 of 518×518. Keeps
/// the memory of a batch of large images within that of a batch of small ones.
const MAX_BATCH_PATCHES: usize = 32_768;

/// What comes back: the features of the image, and the image.
pub(super) type Reply = oneshot::Sender<Result<(Input, Features)>>;

/// An image that waits for the model.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) wanted: RequestedOutputs,
    pub(super) queued: Instant,
    pub(super) reply: Reply,
}

/// A job that waits, and its place in the queue, which is free again when a worker gets the job or
/// the job is dropped.
pub(super) struct Waiting {
    job: Job,
    _place: OwnedSemaphorePermit,
}

/// What the batcher is told.
pub(super) enum Event {
    /// There is a job.
    Job(Waiting),
    /// The worker of this number is ready for a batch.
    Idle(usize),
    /// A run of this worker failed, and it looks whether its session still works.
    Mending(usize),
    /// The session of this worker does not work, for this reason; it is being replaced, and the
    /// worker will be idle then.
    Broken(usize, String),
    /// No more jobs will come.
    Closed,
}

/// Where jobs come in. When it is dropped, what is queued is still done.
#[derive(Debug)]
pub(super) struct Entrance {
    events: mpsc::UnboundedSender<Event>,
    // The channel itself has no bound; these places are it. A job that waits with the batcher still
    // holds its place.
    places: Arc<Semaphore>,
    depth: usize,
}

/// The channel to the batcher, with `depth` places for jobs.
pub(super) fn entrance(depth: usize) -> (Entrance, Events) {
    let depth = depth.clamp(1, Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::unbounded_channel();
    let entrance = Entrance {
        events: sender.clone(),
        places: Arc::new(Semaphore::new(depth)),
        depth,
    };
    (entrance, Events { sender, receiver })
}

/// The batcher's end of the channel, and a sender for its workers.
pub(super) struct Events {
    pub(super) sender: mpsc::UnboundedSender<Event>,
    pub(super) receiver: mpsc::UnboundedReceiver<Event>,
}

impl Entrance {
    /// Puts a job in when there is a place. `None` if there is no engine any more.
    pub(super) async fn put(
        &self,
        input: Input,
        wanted: RequestedOutputs,
        reply: Reply,
    ) -> Option<()> {
        let queued = Instant::now();
        let _place = self.places.clone().acquire_owned().await.ok()?;
        self.events
            .send(Event::Job(Waiting {
                job: Job {
                    input,
                    wanted,
                    queued,
                    reply,
                },
                _place,
            }))
            .ok()
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.depth - self.places.available_permits()
    }

    /// Jobs that may wait.
    pub(super) fn depth(&self) -> usize {
        self.depth
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
    /// What it does.
    pub(super) condition: Condition,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It waits for a batch.
    Idle,
    /// It has a batch.
    Busy,
    /// It looks whether its session works, and makes it anew.
    Mending,
    /// Its session cannot be made anew; it tries on.
    Broken,
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
    /// How the engine runs, when it does.
    plan: Arc<EnginePlan>,
    state: watch::Sender<EngineState>,
}

impl Batcher {
    /// A batcher whose engine is ready with these workers. The last of them is the one for lone
    /// images if the plan has one.
    pub(super) fn new(
        workers: Vec<Seat>,
        plan: EnginePlan,
        state: watch::Sender<EngineState>,
    ) -> Self {
        let (last_is_solo, most, plan) =
            (plan.solo_threads.is_some(), plan.max_batch, Arc::new(plan));
        state.send_replace(EngineState::Ready(Arc::clone(&plan)));
        Self {
            workers,
            last_is_solo,
            most,
            waiting: VecDeque::new(),
            plan,
            state,
        }
    }

    /// Works until no more jobs will come and the last has been given out.
    pub(super) fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut open = true;
        while open || !self.waiting.is_empty() {
            let Some(event) = events.blocking_recv() else {
                return;
            };
            let mut next = Some(event);
            while let Some(event) = next {
                match event {
                    Event::Job(waiting) => self.waiting.push_back(waiting),
                    Event::Idle(worker) => self.free(worker),
                    Event::Mending(worker) => self.workers[worker].condition = Condition::Mending,
                    Event::Broken(worker, reason) => self.set_aside(worker, reason),
                    Event::Closed => open = false,
                }
                next = events.try_recv().ok();
            }
            // Nobody waits for these any more.
            self.waiting
                .retain(|waiting| !waiting.job.reply.is_closed());
            if self.nobody_works() {
                // Whoever waits is told so, as it is not known when there will be a worker.
                self.waiting.clear();
            }
            while let Some((worker, batch)) = self.assign() {
                self.workers[worker].condition = Condition::Busy;
                // It fails only if the worker's thread is gone, and the jobs with it are answered
                // as such.
                let _ = self.workers[worker].batches.send(batch);
            }
        }
    }

    fn free(&mut self, worker: usize) {
        self.workers[worker].condition = Condition::Idle;
        let ready = |state: &EngineState| matches!(state, EngineState::Ready(_));
        if !ready(&self.state.borrow()) {
            self.state
                .send_replace(EngineState::Ready(Arc::clone(&self.plan)));
        }
    }

    /// Takes a worker out of service. The engine is ready as long as another works.
    fn set_aside(&mut self, worker: usize, reason: String) {
        self.workers[worker].condition = Condition::Broken;
        if self.nobody_works() {
            self.state.send_replace(EngineState::Failed(reason));
        }
    }

    fn nobody_works(&self) -> bool {
        self.workers
            .iter()
            .all(|worker| worker.condition == Condition::Broken)
    }

    /// The next worker to get a batch, and the batch.
    fn assign(&mut self) -> Option<(usize, Vec<Job>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let regular = if self.last_is_solo {
            self.workers.len() - 1
        } else {
            self.workers.len()
        };
        if let Some(solo) = self.workers.get(regular) {
            let somebody_is_busy = self
                .workers
                .iter()
                .any(|worker| worker.condition == Condition::Busy);
            // Where the others are broken it does all the work.
            let out =
                |worker: &Seat| matches!(worker.condition, Condition::Mending | Condition::Broken);
            let is_alone = self.workers[..regular].iter().all(out);
            match solo.condition {
                Condition::Idle if !somebody_is_busy && (self.waiting.len() == 1 || is_alone) => {
                    return Some((regular, self.take(1)));
                }
                // It has all the cores; a second image beside it would slow down both.
                Condition::Busy => return None,
                Condition::Idle | Condition::Mending | Condition::Broken => {}
            }
        }
        let idle =
            || (0..regular).filter(|&worker| self.workers[worker].condition == Condition::Idle);
        let worker = idle().next()?;
        // Idle workers share what is there, so that no core sleeps while another has a long batch.
        let sharing = idle().count();
        Some((worker, self.take(sharing)))
    }

    /// The oldest job and those of its grid, the `sharing`th part of them.
    fn take(&mut self, sharing: usize) -> Vec<Job> {
        let Some(grid) = self.waiting.front().map(|oldest| oldest.job.input.grid) else {
            return Vec::new();
        };
        let alike = self
            .waiting
            .iter()
            .filter(|waiting| waiting.job.input.grid == grid)
            .count();
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
