//! The threads that own the sessions and run the batches.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    EngineConfig, EnginePlan, EngineState, Features, ModelSession, Runtime, Sessions,
    batcher::{Batcher, WorkerSlot, WorkerState},
    queue::{Event, Events, Job},
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result},
    telemetry,
    vision::Grid,
};

/// Time between attempts to replace a broken session.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of the engine's thread.
pub(super) struct EngineThreadArgs {
    pub(super) runtime: Runtime,
    pub(super) model: ModelFile,
    pub(super) config: EngineConfig,
    pub(super) events: Events,
    pub(super) state: watch::Sender<EngineState>,
}

impl EngineThreadArgs {
    /// Loads and warms up the sessions, starts a worker thread for each, and runs the batcher until
    /// the last [`super::Engine`] is dropped and the queue is empty.
    pub(super) fn run(self) {
        let (plan, sessions) = match catch_panics(|| self.load()) {
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
            let workers = sessions
                .workers
                .into_iter()
                .chain(sessions.solo)
                .enumerate()
                .map(|(index, session)| {
                    let (batch_sender, batches) = mpsc::unbounded_channel();
                    let worker = Worker {
                        session,
                        grid,
                        index,
                        batches,
                        events: sender.clone(),
                    };
                    std::thread::Builder::new()
                        .name(format!("worker-{index}"))
                        .spawn_scoped(scope, move || worker.run())?;
                    Ok(WorkerSlot {
                        batches: batch_sender,
                        state: WorkerState::Idle,
                    })
                })
                .collect::<std::io::Result<Vec<_>>>();
            match workers {
                Ok(workers) => Batcher::new(workers, plan, self.state).run(receiver),
                Err(error) => {
                    let reason =
                        format!("a worker thread cannot be started: {error}; use fewer --workers");
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

/// A worker thread's session and channels.
struct Worker {
    session: ModelSession,
    /// Grid of the image that probes a session.
    grid: Grid,
    index: usize,
    batches: mpsc::UnboundedReceiver<Vec<Job>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Worker {
    /// Runs the batches that arrive, and reports after each that the worker is idle.
    fn run(mut self) {
        while let Some(batch) = self.batches.blocking_recv() {
            if let Err(failure) = self.run_batch(batch) {
                self.recover(&failure);
            }
            let _ = self.events.send(Event::Idle(self.index));
        }
    }

    /// Runs a batch and replies to its jobs. If the batch fails, each image is run alone, so that
    /// only the faulty image fails.
    fn run_batch(&mut self, batch: Vec<Job>) -> Result<(), Failure> {
        let started = Instant::now();
        let inputs: Vec<_> = batch.iter().map(|job| (&job.input, job.outputs)).collect();
        let result = catch_panics(|| self.session.run(&inputs));
        telemetry::metrics().batch_size.observe(batch.len() as f64);
        match result {
            Ok(features) => {
                for (job, features) in batch.into_iter().zip(features) {
                    let features = Features {
                        queue_time: started - job.queued,
                        ..features
                    };
                    // This fails if the caller has left.
                    let _ = job.reply.send(Ok((job.input, features)));
                }
                Ok(())
            }
            Err(failure) if batch.len() > 1 => {
                tracing::warn!(
                    %failure,
                    images = batch.len(),
                    "a batch failed; its images are run one by one"
                );
                let alone = batch
                    .into_iter()
                    .map(|job| self.run_batch(vec![job]))
                    .fold(Ok(()), Result::and);
                // After a panic the session may be damaged, even if it ran every image alone.
                match failure {
                    Failure::Panic => Err(failure),
                    Failure::Error(_) => alone,
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

    /// Restores a working session after a failed run. If the image was at fault, the session stays;
    /// otherwise it is replaced, however long that takes.
    fn recover(&mut self, failure: &Failure) {
        let _ = self.events.send(Event::Recovering(self.index));
        if matches!(failure, Failure::Error(_))
            && catch_panics(|| self.session.warm_up(self.grid)).is_ok()
        {
            return;
        }
        let mut reported = false;
        while let Err(failure) = catch_panics(|| {
            self.session.replace()?;
            self.session.warm_up(self.grid)
        }) {
            tracing::error!(
                %failure,
                worker = self.index,
                "the session cannot be replaced; retrying"
            );
            if !reported {
                reported = true;
                let _ = self
                    .events
                    .send(Event::Broken(self.index, failure.to_string()));
            }
            std::thread::sleep(RETRY_INTERVAL);
            if self.batches.is_closed() {
                return;
            }
        }
        telemetry::metrics().worker_restarts.inc();
        tracing::warn!(worker = self.index, "the session was replaced");
    }
}

/// Why loading or a run failed.
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

/// Runs `work` and turns a panic into a [`Failure`], so that the thread goes on.
fn catch_panics<T>(work: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
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
