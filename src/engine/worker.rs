//! The threads that own the sessions and work off the queue.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    EngineConfig, EnginePlan, EngineState, Features, ModelSession, RequestedOutputs, Runtime,
    Sessions,
    batcher::{Batcher, Condition, Event, Events, Job, Seat},
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result},
    telemetry,
    vision::Grid,
};

/// What the engine's thread starts with.
pub(super) struct Crew {
    pub(super) runtime: Runtime,
    pub(super) model: ModelFile,
    pub(super) config: EngineConfig,
    pub(super) events: Events,
    pub(super) state: watch::Sender<EngineState>,
}

impl Crew {
    /// Loads and warms up the sessions, starts a thread for each, and gives them batches until the
    /// last [`super::Engine`] is dropped and the queue is empty.
    pub(super) fn run(self) {
        let (plan, sessions) = match guarded(|| self.load()) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.state
                    .send_replace(EngineState::Failed(error.to_string()));
                return;
            }
        };
        let Events { sender, receiver } = self.events;
        let grid = self.model.spec.embed_grid();
        std::thread::scope(|scope| {
            let start = |(number, session): (usize, ModelSession)| {
                let (batches, of_worker) = mpsc::unbounded_channel();
                let worker = Worker {
                    session,
                    grid,
                    number,
                    batches: of_worker,
                    events: sender.clone(),
                };
                let thread = std::thread::Builder::new().name(format!("worker-{number}"));
                thread.spawn_scoped(scope, move || worker.work())?;
                Ok(Seat {
                    batches,
                    condition: Condition::Idle,
                })
            };
            let seats: std::io::Result<Vec<Seat>> = sessions
                .workers
                .into_iter()
                .chain(sessions.solo)
                .enumerate()
                .map(start)
                .collect();
            match seats {
                Ok(seats) => Batcher::new(seats, plan, self.state).run(receiver),
                Err(error) => {
                    let reason =
                        format!("cannot start a worker thread: {error}; use fewer --workers");
                    self.state.send_replace(EngineState::Failed(reason));
                }
            }
        });
    }

    fn load(&self) -> Result<(EnginePlan, Sessions)> {
        let plan = self.config.plan_here(self.model.precision, &self.runtime)?;
        let mut sessions = ModelSession::load(&self.runtime, &self.model, &plan)?;
        let grid = self.model.spec.embed_grid();
        for session in sessions.workers.iter_mut().chain(&mut sessions.solo) {
            session.warm_up(grid)?;
        }
        Ok((plan, sessions))
    }
}

/// How long a worker rests between attempts to make its session anew.
const REST: Duration = Duration::from_secs(1);

/// A thread's session and its work.
struct Worker {
    session: ModelSession,
    /// On which a session is tried.
    grid: Grid,
    number: usize,
    batches: mpsc::UnboundedReceiver<Vec<Job>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Worker {
    /// Runs the batches that come, and tells after each that there is room for the next.
    fn work(mut self) {
        while let Some(batch) = self.batches.blocking_recv() {
            if let Err(failure) = self.serve(batch) {
                self.mend(&failure);
            }
            let _ = self.events.send(Event::Idle(self.number));
        }
    }

    /// Runs a batch and answers each of its jobs. If it fails, each is run alone, so that only the
    /// job at fault fails.
    fn serve(&mut self, batch: Vec<Job>) -> Result<(), Failure> {
        let started = Instant::now();
        let inputs: Vec<(_, RequestedOutputs)> =
            batch.iter().map(|job| (&job.input, job.wanted)).collect();
        let result = guarded(|| self.session.run(&inputs));
        telemetry::metrics().batch_size.observe(batch.len() as f64);
        match result {
            Ok(features) => {
                for (job, features) in batch.into_iter().zip(features) {
                    let queue_time = started - job.queued;
                    // A client that has gone takes no answer.
                    let _ = job.reply.send(Ok((
                        job.input,
                        Features {
                            queue_time,
                            ..features
                        },
                    )));
                }
                Ok(())
            }
            Err(failure) if batch.len() > 1 => {
                tracing::warn!(%failure, images = batch.len(), "a batch failed; its images are run one by one");
                let alone = batch
                    .into_iter()
                    .map(|job| self.serve(vec![job]))
                    .fold(Ok(()), Result::and);
                // After a panic the session is not trusted, though it may have run every image
                // alone.
                if matches!(failure, Failure::Panic) {
                    Err(failure)
                } else {
                    alone
                }
            }
            Err(failure) => {
                tracing::error!(%failure, "inference failed");
                for job in batch {
                    let _ = job.reply.send(Err(Error::internal(failure.to_string())));
                }
                Err(failure)
            }
        }
    }

    /// After a failure, sees to it that the session works: the image may have been at fault, or the
    /// session is broken and is replaced, however long that takes.
    fn mend(&mut self, failure: &Failure) {
        let _ = self.events.send(Event::Mending(self.number));
        let works = |session: &mut ModelSession| guarded(|| session.warm_up(self.grid)).is_ok();
        let image_was_at_fault = matches!(failure, Failure::Error(_)) && works(&mut self.session);
        if image_was_at_fault {
            return;
        }
        let mut reported = false;
        while let Err(failure) = guarded(|| {
            self.session
                .renew()
                .and_then(|()| self.session.warm_up(self.grid))
        }) {
            tracing::error!(%failure, worker = self.number, "the session cannot be replaced; trying again");
            if !std::mem::replace(&mut reported, true) {
                let _ = self
                    .events
                    .send(Event::Broken(self.number, failure.to_string()));
            }
            std::thread::sleep(REST);
            if self.batches.is_closed() {
                return;
            }
        }
        telemetry::metrics().worker_restarts.inc();
        tracing::warn!(worker = self.number, "the session was replaced");
    }
}

/// Why work came to nothing.
#[derive(Debug)]
enum Failure {
    Error(Error),
    Panic,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic => f.write_str("the worker panicked; see the log"),
        }
    }
}

/// Catches a panic, so that the thread lives on.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Failure::Error),
        Err(_) => {
            telemetry::metrics()
                .panics
                .with_label_values(&["worker"])
                .inc();
            Err(Failure::Panic)
        }
    }
}
