//! The threads that own the sessions and work off the queue.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use tokio::sync::watch;

use super::{
    EngineConfig, EngineState, Features, ModelSession, Plan, Runtime, Wanted,
    queue::{Batcher, Job},
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result},
    telemetry,
    vision::{Grid, PATCH},
};

/// What the first thread starts with; it makes the others.
pub(super) struct Crew {
    pub(super) runtime: Runtime,
    pub(super) model: ModelFile,
    pub(super) config: EngineConfig,
    pub(super) batcher: Batcher,
    pub(super) state: watch::Sender<EngineState>,
}

impl Crew {
    /// Loads, warms up, and serves until the last [`super::Engine`] is dropped and the queue is empty.
    pub(super) fn run(self) {
        let (plan, sessions) = match guarded(|| self.load()) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.state.send_replace(EngineState::Failed(error.to_string()));
                return;
            }
        };
        let most = plan.max_batch;
        let mut sessions = sessions.into_iter();
        let Some(own) = sessions.next() else { return };
        self.state.send_replace(EngineState::Ready(Arc::new(plan)));
        std::thread::scope(|scope| {
            for (index, session) in sessions.enumerate() {
                let batcher = &self.batcher;
                let thread = std::thread::Builder::new().name(format!("worker-{}", index + 1));
                if let Err(error) = thread.spawn_scoped(scope, move || work(session, batcher, most)) {
                    tracing::error!(%error, "a worker thread could not be started; the others go on without it");
                }
            }
            work(own, &self.batcher, most);
        });
    }

    fn load(&self) -> Result<(Plan, Vec<ModelSession>)> {
        let plan = self.config.plan_here(self.model.precision, &self.runtime)?;
        let mut sessions = ModelSession::load(&self.runtime, &self.model, &plan)?;
        let side = self.model.spec.embed_size / PATCH;
        for session in &mut sessions {
            session.warm_up(Grid { height: side, width: side })?;
        }
        Ok((plan, sessions))
    }
}

fn work(mut session: ModelSession, batcher: &Batcher, most: usize) {
    while let Some(batch) = batcher.next(most) {
        serve(&mut session, batch);
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
