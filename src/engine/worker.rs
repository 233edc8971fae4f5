//! The threads that own the sessions and work off the queue.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use tokio::sync::{mpsc, watch};

use super::{
    EngineConfig, EngineState, Features, ModelSession, Plan, Runtime, Sessions, Wanted,
    batcher::{Batcher, Event, Events, Job, Seat},
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result},
    telemetry,
    vision::{Grid, PATCH},
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
    /// Loads and warms up the sessions, starts a thread for each, and gives them batches until the last
    /// [`super::Engine`] is dropped and the queue is empty.
    pub(super) fn run(self) {
        let (plan, sessions) = match guarded(|| self.load()) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.state.send_replace(EngineState::Failed(error.to_string()));
                return;
            }
        };
        let (most, with_solo) = (plan.max_batch, sessions.solo.is_some());
        let Events { sender, receiver } = self.events;
        std::thread::scope(|scope| {
            let start = |(number, session): (usize, ModelSession)| {
                let (batches, of_worker) = mpsc::unbounded_channel();
                let events = sender.clone();
                let thread = std::thread::Builder::new().name(format!("worker-{number}"));
                thread.spawn_scoped(scope, move || work(session, of_worker, number, &events))?;
                Ok(Seat { batches, busy: false })
            };
            let seats: std::io::Result<Vec<Seat>> =
                sessions.workers.into_iter().chain(sessions.solo).enumerate().map(start).collect();
            match seats {
                Ok(seats) => {
                    self.state.send_replace(EngineState::Ready(Arc::new(plan)));
                    Batcher::new(seats, with_solo, most).run(receiver);
                }
                Err(error) => {
                    let reason = format!("cannot start a worker thread: {error}; use fewer --workers");
                    self.state.send_replace(EngineState::Failed(reason));
                }
            }
        });
    }

    fn load(&self) -> Result<(Plan, Sessions)> {
        let plan = self.config.plan_here(self.model.precision, &self.runtime)?;
        let mut sessions = ModelSession::load(&self.runtime, &self.model, &plan)?;
        let side = self.model.spec.embed_size / PATCH;
        for session in sessions.workers.iter_mut().chain(&mut sessions.solo) {
            session.warm_up(Grid { height: side, width: side })?;
        }
        Ok((plan, sessions))
    }
}

/// Runs the batches that come, and tells after each that there is room for the next.
fn work(
    mut session: ModelSession,
    mut batches: mpsc::UnboundedReceiver<Vec<Job>>,
    number: usize,
    events: &mpsc::UnboundedSender<Event>,
) {
    while let Some(batch) = batches.blocking_recv() {
        serve(&mut session, batch);
        let _ = events.send(Event::Idle(number));
    }
}

/// Runs a batch and answers each of its jobs. If it fails, each is run alone, so that only the job at fault fails.
fn serve(session: &mut ModelSession, batch: Vec<Job>) {
    let started = Instant::now();
    let inputs: Vec<(_, Wanted)> = batch.iter().map(|job| (&job.input, job.wanted)).collect();
    let result = guarded(|| session.run(&inputs));
    telemetry::metrics().batch_size.observe(batch.len() as f64);
    match result {
        Ok(features) => {
            for (job, features) in batch.into_iter().zip(features) {
                let queue_time = started - job.queued;
                // A client that has gone takes no answer.
                let _ = job.reply.send(Ok((job.input, Features { queue_time, ..features })));
            }
        }
        Err(error) if batch.len() > 1 => {
            tracing::warn!(%error, images = batch.len(), "a batch failed; its images are run one by one");
            batch.into_iter().for_each(|job| serve(session, vec![job]));
        }
        Err(error) => {
            tracing::error!(%error, "inference failed");
            for job in batch {
                let _ = job.reply.send(Err(Error::internal(error.detail())));
            }
        }
    }
}

/// Turns a panic into an error, so that the thread lives on.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::internal("the worker panicked; see the log")))
}
