//! Jobs in the background, one at a time: the training of a probe, an anomaly bank or a segmenter,
//! and the audit or the map of a gallery. Each makes a document. The one in progress and the
//! failures of earlier ones are known only to this process.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::{oneshot, watch};

use crate::{
    background::{self, Priority},
    engine::available_cores,
    error::{Error, Kind, Result},
    features::progress::{Progress, Stage},
    gallery::{DocumentKey, DocumentKind, DocumentName},
};

/// Maximum number of failures that are kept.
const MAX_FAILURES: usize = 32;

/// State of what a job makes.
#[derive(Debug, Clone)]
pub enum JobState {
    /// The job is in progress.
    InProgress(Progress),
    /// What it made can be used.
    Ready,
    /// The last job failed.
    Failed(Arc<Error>),
}

/// Handle to a job.
#[derive(Debug)]
pub struct Job {
    name: DocumentName,
    stopped: AtomicBool,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone)]
enum State {
    InProgress(Progress),
    Ended(Result<(), Arc<Error>>),
}

impl Job {
    /// Waits for the end of the job.
    pub async fn ended(&self) -> Result<(), Arc<Error>> {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| matches!(state, State::Ended(_)));
        match ended.await.as_deref() {
            Ok(State::Ended(outcome)) => outcome.clone(),
            // The sender is part of this handle, so it cannot be dropped before.
            Ok(State::InProgress(_)) | Err(_) => {
                Err(Arc::new(Error::internal("the job was dropped")))
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

    /// Returns whether the job was cancelled.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Returns the error of a cancelled job.
    pub(super) fn cancelled(&self) -> Error {
        let detail = format!("the {} was cancelled before it was ready", self.name.key());
        Error::new(Kind::NotFound, detail)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// The job in progress, and the last failures. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    in_progress: Option<Arc<Job>>,
    failed: VecDeque<(DocumentName, Arc<Error>)>,
}

impl Known {
    fn check_free(&self) -> Result<()> {
        if let Some(other) = &self.in_progress {
            let detail = format!(
                "the {} is in progress, and only one such job runs at a time; wait until GET {} \
                 shows its end, or cancel it with DELETE",
                other.name.key(),
                other.name.key().path()
            );
            return Err(Error::new(Kind::Overloaded, detail));
        }
        Ok(())
    }
}

impl Jobs {
    /// Locks the state. It is consistent at any moment, also after a panic of its holder.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejects a request for a job while another one runs.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] that names the other.
    pub(super) fn check_free(&self) -> Result<()> {
        self.known().check_free()
    }

    /// Starts a job in the background, which begins by reading `inputs` examples or items.
    pub(super) fn start<F>(
        &self,
        key: DocumentKey<'_>,
        inputs: usize,
        work: impl FnOnce(Arc<Job>) -> F,
    ) -> Result<Arc<Job>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut known = self.known();
        known.check_free()?;
        known.failed.retain(|(failed, _)| failed.key() != key);
        let progress = Progress::new(Stage::Reading, 0, Some(inputs));
        let job = Arc::new(Job {
            name: key.to_owned(),
            stopped: AtomicBool::new(false),
            state: watch::Sender::new(State::InProgress(progress)),
        });
        known.in_progress = Some(Arc::clone(&job));
        drop(known);
        let end = EndGuard {
            jobs: self.clone(),
            job: Arc::clone(&job),
        };
        let work = work(Arc::clone(&job));
        tokio::spawn(async move { end.end_with(work.await) });
        Ok(job)
    }

    /// Returns what this process knows of a document. `None` does not mean that none is stored.
    pub(super) fn state(&self, key: DocumentKey<'_>) -> Option<JobState> {
        let known = self.known();
        if let Some(job) = &known.in_progress
            && job.name.key() == key
            && let State::InProgress(progress) = *job.state.borrow()
        {
            return Some(JobState::InProgress(progress));
        }
        let failed = known.failed.iter().find(|(failed, _)| failed.key() == key);
        failed.map(|(_, error)| JobState::Failed(Arc::clone(error)))
    }

    /// Returns the states of the documents of a kind, by name: of the `stored` ones, and of those
    /// that this process knows.
    pub(super) fn list(&self, kind: DocumentKind, stored: Vec<String>) -> Vec<(String, JobState)> {
        let mut states: BTreeMap<String, JobState> = stored
            .into_iter()
            .map(|name| (name, JobState::Ready))
            .collect();
        let known: Vec<DocumentName> = {
            let known = self.known();
            let in_progress = known.in_progress.iter().map(|job| &job.name);
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
        let state = match state {
            JobState::InProgress(_) => "in progress",
            JobState::Ready | JobState::Failed(_) => "failed",
        };
        let detail = format!("the {key} is not ready: {state}; see GET {}", key.path());
        Error::new(Kind::NotFound, detail)
    }

    /// Cancels the job of a document, waits until it has ended, and forgets failures. Returns
    /// whether the document was known.
    pub(super) async fn forget(&self, key: DocumentKey<'_>) -> bool {
        let job = self.known().in_progress.clone();
        let job = job.filter(|job| job.name.key() == key);
        if let Some(job) = &job {
            job.stop();
            let _ = job.ended().await;
        }
        let mut known = self.known();
        let before = known.failed.len();
        known.failed.retain(|(failed, _)| failed.key() != key);
        job.is_some() || known.failed.len() < before
    }

    /// Cancels the job in progress, and waits up to 5 seconds until it has ended.
    pub(super) async fn stop(&self) {
        let job = self.known().in_progress.clone();
        if let Some(job) = job {
            job.stop();
            let _ = tokio::time::timeout(Duration::from_secs(5), job.ended()).await;
        }
    }
}

/// Records the end of a job, also if it panics or the runtime stops.
struct EndGuard {
    jobs: Jobs,
    job: Arc<Job>,
}

impl EndGuard {
    fn end_with(self, outcome: Result<()>) {
        let name = self.job.name.key();
        let outcome = outcome.map_err(Arc::new);
        let mut known = self.jobs.known();
        match &outcome {
            Ok(()) => tracing::info!("the {name} is ready"),
            Err(error) if self.job.is_stopped() => {
                tracing::info!("{error}");
            }
            Err(error) => {
                tracing::warn!(%error, "the {name} failed");
                known.failed.push_back((name.to_owned(), Arc::clone(error)));
                if known.failed.len() > MAX_FAILURES {
                    known.failed.pop_front();
                }
            }
        }
        known.in_progress = None;
        drop(known);
        self.job.state.send_replace(State::Ended(outcome));
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // The thread of the work reads this flag.
        self.job.stop();
        let ended = matches!(*self.job.state.borrow(), State::Ended(_));
        if !ended {
            self.jobs.known().in_progress = None;
            let aborted = Error::internal("the job was aborted");
            let ended = State::Ended(Err(Arc::new(aborted)));
            self.job.state.send_replace(ended);
        }
    }
}

/// Runs the work of a job on its own thread of low priority, so that requests go first.
pub(super) async fn on_low_priority_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        // An error means that the receiver has been dropped.
        let _ = sender.send(work());
    };
    background::spawn("job", Priority::Lowest, run)
        .map_err(|error| Error::io("starting the thread of a job", error))?;
    receiver
        .await
        .map_err(|_| Error::internal("the job panicked"))
}

/// Returns the number of threads of a job that can use several: half of the cores, on which
/// requests go first.
pub(super) fn job_threads() -> NonZero<usize> {
    NonZero::new(available_cores() / 2).unwrap_or(NonZero::<usize>::MIN)
}

/// Returns the time in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default().as_millis() as u64
}
