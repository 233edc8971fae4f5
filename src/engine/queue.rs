//! The bounded job queue, and the events of the batcher.

use std::{sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{Features, Input, RequestedOutputs};
use crate::error::Result;

/// Receives the features of the image, and the image itself.
pub(super) type Reply = oneshot::Sender<Result<(Input, Features)>>;

/// An image to run through the model.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) outputs: RequestedOutputs,
    pub(super) queued: Instant,
    pub(super) reply: Reply,
}

/// A job in the queue. Its permit is released when a worker gets the job or the job is dropped.
pub(super) struct QueuedJob {
    pub(super) job: Job,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// An event for the batcher.
pub(super) enum Event {
    /// A job was queued.
    Job(QueuedJob),
    /// The worker of this index can take a batch.
    Idle(usize),
    /// A run of this worker failed, and the worker is probing its session.
    Recovering(usize),
    /// The session of this worker is broken for this reason. The worker is replacing it, and will
    /// be idle afterward.
    Broken(usize, String),
    /// The queue was dropped; no more jobs will come.
    Closed,
}

/// Handle that adds jobs to the queue. When it is dropped, the queued jobs still run.
#[derive(Debug)]
pub(super) struct JobQueue {
    events: mpsc::UnboundedSender<Event>,
    // The channel is unbounded, because a queued job counts against the depth also after the
    // batcher has received it. The permits are the bound.
    permits: Arc<Semaphore>,
    depth: usize,
}

impl JobQueue {
    /// Creates a queue for `depth` jobs, which `events` sends to the batcher.
    pub(super) fn new(depth: usize, events: mpsc::UnboundedSender<Event>) -> Self {
        let depth = depth.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(depth));
        Self {
            events,
            permits,
            depth,
        }
    }

    /// Adds a job as soon as the queue has room. Returns `None` if the engine has ended.
    pub(super) async fn push(
        &self,
        input: Input,
        outputs: RequestedOutputs,
        reply: Reply,
    ) -> Option<()> {
        let job = Job {
            input,
            outputs,
            queued: Instant::now(),
            reply,
        };
        let _permit = self.permits.clone().acquire_owned().await.ok()?;
        let queued = Event::Job(QueuedJob { job, _permit });
        self.events.send(queued).ok()
    }

    /// Returns the number of queued jobs.
    pub(super) fn len(&self) -> usize {
        self.depth - self.permits.available_permits()
    }

    /// Returns the maximum number of queued jobs.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }
}

impl Drop for JobQueue {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Closed);
    }
}
