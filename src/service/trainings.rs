//! Trainings in the background, one at a time: of probes, anomaly banks and segmenters. The one in
//! progress and the failures of earlier ones are known only to this process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{oneshot, watch};

use crate::{
    background::{self, Priority},
    error::{Error, Kind, Result},
    features::progress::{Progress, Stage},
    gallery::{DocumentKey, DocumentKind, DocumentName},
};

/// Maximum number of failures that are kept.
const MAX_FAILURES: usize = 32;

/// State of what is trained.
#[derive(Debug, Clone, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum TrainedState {
    /// Its training is in progress.
    Training(Progress),
    /// It can be used.
    Ready,
    /// Its last training failed.
    Failed(Arc<Error>),
}

impl TrainedState {
    /// Returns the name of the state.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// Handle to a training.
#[derive(Debug)]
pub struct Training {
    name: DocumentName,
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
            "the training of the {} was ended before it was ready",
            self.name.key()
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
    failed: VecDeque<(DocumentName, Arc<Error>)>,
}

impl Known {
    fn check_free(&self) -> Result<()> {
        if let Some(other) = &self.in_progress {
            let detail = format!(
                "the {} is being trained, and only one training runs at a time; wait until \
                 GET {} shows its end, or cancel it with DELETE",
                other.name.key(),
                other.name.key().path()
            );
            return Err(Error::new(Kind::Overloaded, detail));
        }
        Ok(())
    }
}

impl Trainings {
    /// Locks the state. It is consistent at any moment, also after a panic of its holder.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejects a request for a training while another one runs.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] that names the other.
    pub(super) fn check_free(&self) -> Result<()> {
        self.known().check_free()
    }

    /// Starts a training on `examples` examples in the background.
    pub(super) fn start<F>(
        &self,
        key: DocumentKey<'_>,
        examples: usize,
        job: impl FnOnce(Arc<Training>) -> F,
    ) -> Result<Arc<Training>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut known = self.known();
        known.check_free()?;
        known.failed.retain(|(failed, _)| failed.key() != key);
        let progress = Progress::new(Stage::Reading, 0, Some(examples));
        let training = Arc::new(Training {
            name: key.to_owned(),
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

    /// Returns what this process knows of a document. `None` does not mean that none is stored.
    pub(super) fn state(&self, key: DocumentKey<'_>) -> Option<TrainedState> {
        let known = self.known();
        if let Some(training) = &known.in_progress
            && training.name.key() == key
            && let State::InProgress(progress) = *training.state.borrow()
        {
            return Some(TrainedState::Training(progress));
        }
        let failed = known.failed.iter().find(|(failed, _)| failed.key() == key);
        failed.map(|(_, error)| TrainedState::Failed(Arc::clone(error)))
    }

    /// Returns the states of the documents of a kind, by name: of the `stored` ones, and of those
    /// that this process knows.
    pub(super) fn list(
        &self,
        kind: DocumentKind,
        stored: Vec<String>,
    ) -> Vec<(String, TrainedState)> {
        let mut states: BTreeMap<String, TrainedState> = stored
            .into_iter()
            .map(|name| (name, TrainedState::Ready))
            .collect();
        let known: Vec<DocumentName> = {
            let known = self.known();
            let in_progress = known.in_progress.iter().map(|training| &training.name);
            let failed = known.failed.iter().map(|(name, _)| name);
            in_progress.chain(failed).cloned().collect()
        };
        for name in known.iter().map(DocumentName::key) {
            if name.kind() == kind
                && let Some(state) = self.state(name)
            {
                states.insert(name.name().to_owned(), state);
            }
        }
        states.into_iter().collect()
    }

    /// Returns the error for a document that is not stored.
    pub(super) fn not_ready(&self, key: DocumentKey<'_>) -> Error {
        let Some(state) = self.state(key) else {
            return key.missing();
        };
        let state = state.name();
        let detail = format!("the {key} is not ready: {state}; see GET {}", key.path());
        Error::new(Kind::NotFound, detail)
    }

    /// Cancels the training of a document, waits until it has ended, and forgets failures. Returns
    /// whether the document was known.
    pub(super) async fn forget(&self, key: DocumentKey<'_>) -> bool {
        let training = self.known().in_progress.clone();
        let training = training.filter(|training| training.name.key() == key);
        if let Some(training) = &training {
            training.stop();
            let _ = training.ended().await;
        }
        let mut known = self.known();
        let before = known.failed.len();
        known.failed.retain(|(failed, _)| failed.key() != key);
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
        let name = self.training.name.key();
        let outcome = outcome.map_err(Arc::new);
        let mut known = self.trainings.known();
        match &outcome {
            Ok(()) => tracing::info!("trained the {name}"),
            Err(error) if self.training.is_stopped() => {
                tracing::info!("{error}");
            }
            Err(error) => {
                tracing::warn!(%error, "the training of the {name} failed");
                known.failed.push_back((name.to_owned(), Arc::clone(error)));
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

/// Runs the work of a training on its own thread of low priority, so that requests go first.
pub(super) async fn on_low_priority_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let train = move || {
        // An error means that the receiver has been dropped.
        let _ = sender.send(work());
    };
    background::spawn("training", Priority::Lowest, train)
        .map_err(|error| Error::io("starting the thread of a training", error))?;
    receiver
        .await
        .map_err(|_| Error::internal("the training panicked"))
}

/// Returns the time in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default().as_millis() as u64
}
