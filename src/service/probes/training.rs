//! The training that is under way: read on the runtime, computed on a thread of its own that yields
//! to everyone, stored.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use futures_util::StreamExt;
use tokio::sync::{oneshot, watch};

use super::{super::GalleryLimits, ProbePlan, ProbeState, StoredProbe, stored::Origin};
use crate::{
    error::{Error, Kind, Result},
    features::probe::{Examples, Probe, Progress, Stage, train},
    gallery::{Gallery, GalleryInfo, Parts, ProbeName, StoredItem, read_whole},
};

/// Failures that are remembered until somebody asks.
const REMEMBERED: usize = 32;

/// A training that was begun.
#[derive(Debug)]
pub struct Training {
    name: ProbeName,
    stopped: AtomicBool,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone)]
enum State {
    UnderWay(Progress),
    Ended(Result<(), Arc<Error>>),
}

impl Training {
    /// How it ended, when it has.
    ///
    /// # Errors
    /// What it failed of.
    pub async fn ended(&self) -> Result<(), Arc<Error>> {
        let mut state = self.state.subscribe();
        match state
            .wait_for(|state| matches!(state, State::Ended(_)))
            .await
            .as_deref()
        {
            Ok(State::Ended(outcome)) => outcome.clone(),
            // The sender is this training itself.
            Ok(State::UnderWay(_)) | Err(_) => {
                Err(Arc::new(Error::internal("a training has gone")))
            }
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Tells how far it is, and gives whether to go on.
    fn advance(&self, progress: Progress) -> bool {
        self.state.send_if_modified(|state| match state {
            State::UnderWay(before) => std::mem::replace(before, progress) != progress,
            State::Ended(_) => false,
        });
        !self.stopped.load(Ordering::Relaxed)
    }

    fn cancelled(&self) -> Error {
        Error::new(
            Kind::NotFound,
            format!(
                "the training of the probe `{}` was ended before it was ready",
                self.name
            ),
        )
    }
}

/// The training under way, if one is, and what the last ones failed of. Clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::service) struct Trainings(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    under_way: Option<Arc<Training>>,
    failed: VecDeque<(ProbeName, Arc<Error>)>,
}

impl Trainings {
    /// What is known here is whole at any moment, also if a thread that held it has panicked.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a training in the background.
    pub(super) fn begin(
        &self,
        store: Gallery,
        info: GalleryInfo,
        plan: ProbePlan,
        dim: usize,
        limits: GalleryLimits,
    ) -> Result<Arc<Training>> {
        let progress = Progress {
            stage: Stage::Reading,
            done: 0,
            total: Some(info.items as usize),
        };
        let state = watch::Sender::new(State::UnderWay(progress));
        let training = Arc::new(Training {
            name: plan.name.clone(),
            stopped: AtomicBool::new(false),
            state,
        });
        let mut known = self.known();
        if let Some(other) = &known.under_way {
            let detail = format!(
                "the probe `{name}` is being trained, and one is at a time; wait until GET /v1/probes/{name} says it has \
                 ended, or end it with DELETE",
                name = other.name
            );
            return Err(Error::new(Kind::Overloaded, detail));
        }
        known.under_way = Some(Arc::clone(&training));
        known.failed.retain(|(name, _)| *name != plan.name);
        drop(known);
        let end = End {
            trainings: self.clone(),
            training: Arc::clone(&training),
        };
        tokio::spawn(async move {
            let outcome = run(store, info, plan, dim, limits, &end.training).await;
            end.with(outcome);
        });
        Ok(training)
    }

    /// What is known of the probe here; `None` does not mean that none is stored.
    pub(super) fn state(&self, name: &ProbeName) -> Option<ProbeState> {
        let known = self.known();
        if let Some(training) = known
            .under_way
            .as_ref()
            .filter(|training| training.name == *name)
            && let State::UnderWay(progress) = *training.state.borrow()
        {
            return Some(ProbeState::Training(progress));
        }
        let failed = known.failed.iter().find(|(failed, _)| failed == name);
        failed.map(|(_, error)| ProbeState::Failed(Arc::clone(error)))
    }

    /// Names of all probes of which something is known here.
    pub(super) fn names(&self) -> BTreeSet<ProbeName> {
        let known = self.known();
        let failed = known.failed.iter().map(|(name, _)| name);
        known
            .under_way
            .iter()
            .map(|training| &training.name)
            .chain(failed)
            .cloned()
            .collect()
    }

    /// Ends the training of the probe, waits until it has ended, and forgets why it failed. Tells
    /// whether anything was known.
    pub(super) async fn forget(&self, name: &ProbeName) -> bool {
        let under_way = self
            .known()
            .under_way
            .clone()
            .filter(|training| training.name == *name);
        if let Some(training) = &under_way {
            training.stop();
            // How it ended does not matter any more.
            let _ = training.ended().await;
        }
        let mut known = self.known();
        let before = known.failed.len();
        known.failed.retain(|(failed, _)| failed != name);
        under_way.is_some() || known.failed.len() < before
    }

    /// Ends whatever is under way.
    pub(super) async fn stop(&self) {
        let under_way = self.known().under_way.clone();
        if let Some(training) = under_way {
            training.stop();
            let _ = training.ended().await;
        }
    }
}

/// Sees to it that a training ends, also one that panics or whose runtime stops.
struct End {
    trainings: Trainings,
    training: Arc<Training>,
}

impl End {
    fn with(self, outcome: Result<()>) {
        let name = &self.training.name;
        let outcome = outcome.map_err(Arc::new);
        let mut known = self.trainings.known();
        match &outcome {
            Ok(()) => tracing::info!(probe = %name, "trained"),
            Err(error) if self.training.stopped.load(Ordering::Relaxed) => {
                tracing::info!(probe = %name, "{error}");
            }
            Err(error) => {
                tracing::warn!(probe = %name, %error, "the training failed");
                known.failed.push_back((name.clone(), Arc::clone(error)));
                if known.failed.len() > REMEMBERED {
                    known.failed.pop_front();
                }
            }
        }
        known.under_way = None;
        drop(known);
        self.training.state.send_replace(State::Ended(outcome));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // The thread that computes looks at this.
        self.training.stop();
        let ended = matches!(*self.training.state.borrow(), State::Ended(_));
        if !ended {
            self.trainings.known().under_way = None;
            let gone = Error::internal("the training was given up");
            self.training
                .state
                .send_replace(State::Ended(Err(Arc::new(gone))));
        }
    }
}

async fn run(
    store: Gallery,
    info: GalleryInfo,
    plan: ProbePlan,
    dim: usize,
    limits: GalleryLimits,
    training: &Arc<Training>,
) -> Result<()> {
    let mut examples = Examples::new(plan.features.width(dim), limits.max_probe_classes);
    let mut about = Origin {
        gallery: plan.gallery.clone(),
        features: plan.features,
        binding: info.binding,
        unlabelled: 0,
        without_features: 0,
        trained_ms: 0,
    };
    let parts = Parts {
        features: true,
        ..Parts::NONE
    };
    let (now, mut items) = read_whole(&store, &plan.gallery, parts).await?;
    // Another gallery may have got the name since the plan was made.
    now.binding.check(&plan.gallery, &about.binding)?;
    let mut done = 0;
    while let Some(item) = items.next().await {
        done += 1;
        let total = Some(now.items as usize);
        if !training.advance(Progress {
            stage: Stage::Reading,
            done,
            total,
        }) {
            return Err(training.cancelled());
        }
        gather(item?, &plan, &limits, &mut examples, &mut about)?;
    }
    drop(items);

    let computing = Arc::clone(training);
    let trained = on_a_thread_that_yields(move || {
        train(&examples, &plan.options, &mut |progress| {
            computing.advance(progress)
        })
    });
    let probe: Option<Probe> = trained.await??;
    let probe = probe
        .filter(|_| !training.stopped.load(Ordering::Relaxed))
        .ok_or_else(|| training.cancelled())?;
    if !probe.converged {
        tracing::warn!(probe = %plan.name, l2 = probe.l2, "the training was cut short; a larger l2 makes it easier");
    }
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    about.trained_ms = since_1970.as_millis() as u64;
    let document = StoredProbe { probe, about }.encode()?;
    store.put_document((&plan.name).into(), document).await
}

/// Adds an item to the examples if it is one.
fn gather(
    item: StoredItem,
    plan: &ProbePlan,
    limits: &GalleryLimits,
    examples: &mut Examples,
    about: &mut Origin,
) -> Result<()> {
    let StoredItem { item, features, .. } = item;
    if plan
        .filter
        .as_ref()
        .is_some_and(|filter| !filter.matches(item.label.as_ref(), &item.metadata))
    {
        return Ok(());
    }
    let Some(label) = item.label else {
        about.unlabelled += 1;
        return Ok(());
    };
    let Some(mut features) = features else {
        about.without_features += 1;
        return Ok(());
    };
    if examples.len() == limits.max_probe_items {
        let most = limits.max_probe_items;
        let detail = format!(
            "the gallery `{}` has more than {most} items to learn from, which would take more memory than is allowed; choose \
             some with `where`, or raise the limit",
            plan.gallery
        );
        return Err(Error::new(Kind::TooLarge, detail).with_limit(
            "max_probe_items",
            most as u64,
            "--max-probe-items",
        ));
    }
    if features.len() > examples.width() {
        // CLS comes first.
        features.truncate(examples.width());
        features.shrink_to_fit();
    }
    examples
        .add(features, label.as_str())
        .map_err(|error| error.context(format_args!("item `{}`", item.id)))
}

/// Runs work on a thread of its own that gets what the requests leave over.
async fn on_a_thread_that_yields<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (send, receive) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            yield_to_others();
            // Whoever waited may have gone.
            let _ = send.send(work());
        });
    thread.map_err(|error| Error::io("starting the thread of a training", error))?;
    receive
        .await
        .map_err(|_| Error::internal("the training panicked"))
}

/// The nicest priority. On Linux it is the thread's own; elsewhere it would be that of the whole
/// process, so it stays.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::warn!(%error, "a training runs beside the requests, not behind them");
    }
}
