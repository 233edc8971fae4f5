//! The training in progress, and the failures of earlier ones.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    error::{Error, Kind, Result},
    features::probe::{Progress, Stage},
    gallery::ProbeName,
};

/// Maximum number of failures that are kept.
const MAX_FAILURES: usize = 32;

/// State of a probe.
#[derive(Debug, Clone, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ProbeState {
    /// Its training is in progress.
    Training(Progress),
    /// It can be used.
    Ready,
    /// Its last training failed.
    Failed(Arc<Error>),
}

impl ProbeState {
    /// Returns the name of the state.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// Handle to a training.
#[derive(Debug)]
pub struct Training {
    name: ProbeName,
    stopped: AtomicBool,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone)]
enum State {
    InProgress(Progress),
    Ended(Result<(), Arc<Error>>),
}

impl Training {
    /// Waits for the end of the training.
    pub async fn ended(&self) -> Result<(), Arc<Error>> {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| matches!(state, State::Ended(_)));
        match ended.await.as_deref() {
            Ok(State::Ended(outcome)) => outcome.clone(),
            // The sender is part of this handle, so it cannot be dropped before.
            Ok(State::InProgress(_)) | Err(_) => {
                Err(Arc::new(Error::internal("the training was dropped")))
            }
        }
    }

    /// Publishes the progress. Returns whether to continue.
    pub(super) fn advance(&self, progress: Progress) -> bool {
        self.state.send_if_modified(|state| match state {
            State::InProgress(before) => std::mem::replace(before, progress) != progress,
            State::Ended(_) => false,
        });
        !self.is_stopped()
    }

    /// Returns whether the training was cancelled.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Returns the error of a cancelled training.
    pub(super) fn cancelled(&self) -> Error {
        let detail = format!(
            "the training of the probe `{}` was ended before it was ready",
            self.name
        );
        Error::new(Kind::NotFound, detail)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// The training in progress, and the last failures. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Trainings(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    in_progress: Option<Arc<Training>>,
    failed: VecDeque<(ProbeName, Arc<Error>)>,
}

impl Trainings {
    /// Locks the state. It is consistent at any moment, also after a panic of its holder.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a training of `items` items in the background.
    pub(super) fn start<F>(
        &self,
        name: ProbeName,
        items: usize,
        job: impl FnOnce(Arc<Training>) -> F,
    ) -> Result<Arc<Training>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut known = self.known();
        if let Some(other) = &known.in_progress {
            let detail = format!(
                "the probe `{name}` is being trained, and only one can be; wait until \
                 GET /v1/probes/{name} shows its end, or cancel it with DELETE",
                name = other.name
            );
            return Err(Error::new(Kind::Overloaded, detail));
        }
        known.failed.retain(|(failed, _)| *failed != name);
        let progress = Progress {
            stage: Stage::Reading,
            done: 0,
            total: Some(items),
        };
        let training = Arc::new(Training {
            name,
            stopped: AtomicBool::new(false),
            state: watch::Sender::new(State::InProgress(progress)),
        });
        known.in_progress = Some(Arc::clone(&training));
        drop(known);
        let end = EndGuard {
            trainings: self.clone(),
            training: Arc::clone(&training),
        };
        let job = job(Arc::clone(&training));
        tokio::spawn(async move { end.end_with(job.await) });
        Ok(training)
    }

    /// Returns what this process knows of a probe. `None` does not mean that none is stored.
    pub(super) fn state(&self, name: &ProbeName) -> Option<ProbeState> {
        let known = self.known();
        if let Some(training) = &known.in_progress
            && training.name == *name
            && let State::InProgress(progress) = *training.state.borrow()
        {
            return Some(ProbeState::Training(progress));
        }
        let failed = known.failed.iter().find(|(failed, _)| failed == name);
        failed.map(|(_, error)| ProbeState::Failed(Arc::clone(error)))
    }

    /// Returns the names of the probes that this process knows.
    pub(super) fn names(&self) -> BTreeSet<ProbeName> {
        let known = self.known();
        let in_progress = known.in_progress.iter().map(|training| &training.name);
        let failed = known.failed.iter().map(|(name, _)| name);
        in_progress.chain(failed).cloned().collect()
    }

    /// Cancels the training of a probe, waits until it has ended, and forgets failures. Returns
    /// whether the probe was known.
    pub(super) async fn forget(&self, name: &ProbeName) -> bool {
        let training = self.known().in_progress.clone();
        let training = training.filter(|training| training.name == *name);
        if let Some(training) = &training {
            training.stop();
            let _ = training.ended().await;
        }
        let mut known = self.known();
        let before = known.failed.len();
        known.failed.retain(|(failed, _)| failed != name);
        training.is_some() || known.failed.len() < before
    }

    /// Cancels the training in progress, and waits until it has ended.
    pub(super) async fn stop(&self) {
        let training = self.known().in_progress.clone();
        if let Some(training) = training {
            training.stop();
            let _ = training.ended().await;
        }
    }
}

/// Records the end of a training, also if it panics or the runtime stops.
struct EndGuard {
    trainings: Trainings,
    training: Arc<Training>,
}

impl EndGuard {
    fn end_with(self, outcome: Result<()>) {
        let name = &self.training.name;
        let outcome = outcome.map_err(Arc::new);
        let mut known = self.trainings.known();
        match &outcome {
            Ok(()) => tracing::info!(probe = %name, "trained"),
            Err(error) if self.training.is_stopped() => {
                tracing::info!(probe = %name, "{error}");
            }
            Err(error) => {
                tracing::warn!(probe = %name, %error, "the training failed");
                known.failed.push_back((name.clone(), Arc::clone(error)));
                if known.failed.len() > MAX_FAILURES {
                    known.failed.pop_front();
                }
            }
        }
        known.in_progress = None;
        drop(known);
        self.training.state.send_replace(State::Ended(outcome));
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // The optimizer's thread reads this flag.
        self.training.stop();
        let ended = matches!(*self.training.state.borrow(), State::Ended(_));
        if !ended {
            self.trainings.known().in_progress = None;
            let aborted = Error::internal("the training was aborted");
            let ended = State::Ended(Err(Arc::new(aborted)));
            self.training.state.send_replace(ended);
        }
    }
}
