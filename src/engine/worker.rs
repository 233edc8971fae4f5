//! The threads that own the sessions and run the batches.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    EngineConfig, EnginePlan, EngineState, Features, ModelSession, Runtime, Sessions,
    batcher::{Batcher, WorkerSlot, WorkerState},
    cores::CoreBudget,
    hardware::{available_cores, resident_bytes},
    info::ModelInfo,
    queue::{Event, Job},
};
use crate::{
    artifacts::ModelFile,
    error::{Error, Result},
    telemetry,
    vision::Grid,
};

/// Time between attempts to replace a broken session.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Loads and warms up the sessions, starts a worker thread for each, and runs the batcher until
/// the last [`super::Engine`] is dropped and the queue is empty.
pub(super) fn run_engine(
    runtime: &Runtime,
    model: &ModelFile,
    config: &EngineConfig,
    info: &ModelInfo,
    events: &mpsc::UnboundedSender<Event>,
    receiver: mpsc::UnboundedReceiver<Event>,
    state: watch::Sender<EngineState>,
) {
    let grid = model.spec.embed_grid();
    let (plan, sessions) = match catch_panics(|| load(runtime, model, config, info)) {
        Ok(loaded) => loaded,
        Err(error) => {
            state.send_replace(EngineState::Failed(error.to_string()));
            return;
        }
    };
    let name: Arc<str> = info.spec.name.as_str().into();
    let cores = &runtime.cores;
    std::thread::scope(|scope| {
        let sessions = sessions.workers.into_iter().chain(sessions.solo);
        let workers = sessions.enumerate().map(|(index, session)| {
            let (sender, batches) = mpsc::unbounded_channel();
            let events = events.clone();
            let worker = Worker {
                model: Arc::clone(&name),
                cores: cores.clone(),
                session,
                grid,
                index,
                batches,
                events,
            };
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn_scoped(scope, move || worker.run())?;
            let state = WorkerState::Idle;
            Ok(WorkerSlot {
                batches: sender,
                state,
            })
        });
        match workers.collect::<std::io::Result<_>>() {
            Ok(workers) => Batcher::new(workers, plan, cores.clone(), state).run(receiver),
            Err(error) => {
                let reason =
                    format!("a worker thread cannot be started: {error}; use fewer --workers");
                state.send_replace(EngineState::Failed(reason));
            }
        }
    });
}

fn load(
    runtime: &Runtime,
    model: &ModelFile,
    config: &EngineConfig,
    info: &ModelInfo,
) -> Result<(EnginePlan, Sessions)> {
    let loading = runtime.loading.lock();
    let _loading = loading.unwrap_or_else(PoisonError::into_inner);
    let before = resident_bytes();
    let plan = config.plan_here(model.precision, runtime)?;
    let mut sessions = ModelSession::load(runtime, model, &plan)?;
    for session in sessions.workers.iter_mut().chain(&mut sessions.solo) {
        session.warm_up(model.spec.embed_grid())?;
    }
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        // Set once, because an engine is loaded once.
        let _ = info.memory.set(after.saturating_sub(before));
    }
    if let Some(cores) = plan.max_cores() {
        runtime.cores.grow_to(cores.max(available_cores()));
    }
    Ok((plan, sessions))
}

/// A worker thread's session and channels.
struct Worker {
    /// Name of the model, for metrics.
    model: Arc<str>,
    cores: CoreBudget,
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
            let cores = self.cores.take(self.session.cores());
            let ran = self.run_batch(batch);
            drop(cores);
            if let Err(failure) = ran {
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
        telemetry::metrics().observe_batch(&self.model, batch.len());
        match result {
            Ok(features) => {
                for (job, features) in batch.into_iter().zip(features) {
                    let queue_time = started - job.queued;
                    let features = Features {
                        queue_time,
                        ..features
                    };
                    // This fails if the caller has left.
                    let _ = job.reply.send(Ok((job.input, features)));
                }
                Ok(())
            }
            Err(failure) if batch.len() > 1 => {
                let images = batch.len();
                tracing::warn!(%failure, images, "a batch failed; its images are run one by one");
                let results = batch.into_iter().map(|job| self.run_batch(vec![job]));
                let alone = results.fold(Ok(()), Result::and);
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
            let worker = self.index;
            tracing::error!(%failure, worker, "the session cannot be replaced; retrying");
            if !reported {
                reported = true;
                let broken = Event::Broken(worker, failure.to_string());
                let _ = self.events.send(broken);
            }
            std::thread::sleep(RETRY_INTERVAL);
            if self.batches.is_closed() {
                return;
            }
        }
        telemetry::metrics().count_worker_restart(&self.model);
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
            telemetry::metrics().count_panic("worker");
            Err(Failure::Panic)
        }
    }
}
