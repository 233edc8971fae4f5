//! The thread that owns a session and works off the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, watch};

use super::{EngineConfig, EngineState, Features, Job, ModelSession, Runtime, Wanted};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result},
    telemetry,
    vision::{Grid, PATCH},
};

pub(super) struct Worker {
    pub(super) runtime: Runtime,
    pub(super) model: ModelFile,
    pub(super) config: EngineConfig,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) state: watch::Sender<EngineState>,
}

impl Worker {
    /// Loads, warms up, and serves until the last [`super::Engine`] is dropped and the queue is empty.
    pub(super) fn run(mut self) {
        let loaded = guarded(|| self.load());
        let mut session = match loaded {
            Ok(session) => session,
            Err(error) => {
                self.state.send_replace(EngineState::Failed(error.to_string()));
                return;
            }
        };
        self.state.send_replace(EngineState::Ready(session.provider()));
        while let Some(job) = self.jobs.blocking_recv() {
            if !job.reply.is_closed() {
                serve(&mut session, vec![job]);
            }
        }
    }

    fn load(&self) -> Result<ModelSession> {
        let mut session =
            ModelSession::load(&self.runtime, &self.model, self.config.device, self.config.intra_threads)?;
        let side = self.model.spec.embed_size / PATCH;
        session.warm_up(Grid { height: side, width: side })?;
        Ok(session)
    }
}

/// Runs a batch and answers each of its jobs.
fn serve(session: &mut ModelSession, batch: Vec<Job>) {
    let started = std::time::Instant::now();
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
