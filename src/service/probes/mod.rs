//! Linear probes on the items of a gallery. They are trained in the background, one at a time, and
//! kept in the gallery's store.
//!
//! Trained probes survive this process, and other servers on the store use them, too. The training
//! in progress and the reasons of failures are known only to this process.

mod classify;
mod stored;
mod training;

use std::sync::Arc;

pub use self::{
    stored::{Origin, ProbeFeatures, StoredProbe},
    training::ProbePlan,
};
use super::{
    extractor::Extractor,
    galleries::GalleryLimits,
    jobs::{Job, JobState, Jobs},
    models::ModelChoice,
};
use crate::{
    error::{Error, Result},
    gallery::{DocumentKey, DocumentKind, Gallery, ProbeName},
};

/// The probes of a store. Clones share them and the training in progress.
#[derive(Debug, Clone)]
pub struct Probes {
    store: Gallery,
    limits: GalleryLimits,
    jobs: Jobs,
}

impl Probes {
    /// Returns the probes of a store, which are trained among `jobs`.
    pub(super) fn new(store: Gallery, limits: GalleryLimits, jobs: Jobs) -> Self {
        Self {
            store,
            limits,
            jobs,
        }
    }

    /// Starts to train a probe, and returns a handle to the training.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] during another training. Unsuitable items are an error of the training
    /// itself.
    pub async fn train(&self, model: &ModelChoice, plan: ProbePlan) -> Result<Arc<Job>> {
        plan.options.check()?;
        self.limits.check_filter(plan.filter.as_ref())?;
        let info = self.store.require_gallery(&plan.gallery).await?;
        let holder = format_args!("the gallery `{}` holds", plan.gallery);
        let extractor = model.of_stored(&info.binding.model, holder)?;
        let dim = extractor.engine().spec().architecture.dim;
        let name = plan.name.clone();
        let items = info.items as usize;
        let work = training::Work {
            store: self.store.clone(),
            limits: self.limits,
            binding: info.binding,
            plan,
            dim,
        };
        self.jobs.start((&name).into(), items, |job| work.run(job))
    }

    /// Returns the state of a probe, and the stored probe if there is one.
    pub async fn get(
        &self,
        model: &ModelChoice,
        name: &ProbeName,
    ) -> Result<(JobState, Option<StoredProbe>)> {
        // The state is read first: a training that ends after that has stored its probe.
        let state = self.jobs.state(name.into());
        let stored = self.stored(&model.of_new(), name).await?;
        if let Some(stored) = &stored {
            model.allow(&stored.about.binding.model, takes(name))?;
        }
        match (state, stored) {
            (None, None) => Err(DocumentKey::from(name).missing()),
            (state, stored) => Ok((state.unwrap_or(JobState::Ready), stored)),
        }
    }

    /// Returns a probe for use.
    async fn ready(
        &self,
        model: &ModelChoice,
        name: &ProbeName,
    ) -> Result<(Extractor, StoredProbe)> {
        // The probe is read each time, because another server on the store can replace it.
        let Some(stored) = self.stored(&model.of_new(), name).await? else {
            return Err(self.jobs.not_ready(name.into()));
        };
        let holder = takes(name);
        let extractor = model.of_stored(&stored.about.binding.model, holder)?;
        let made = stored
            .about
            .features
            .width(extractor.engine().spec().architecture.dim);
        let width = stored.probe.width();
        if width != made {
            let detail = format!(
                "the probe `{name}` is damaged: it takes {width} values, and its model makes {made}"
            );
            return Err(Error::damaged(detail));
        }
        Ok((extractor, stored))
    }

    /// Returns the states of all probes, by name.
    pub async fn list(&self) -> Result<Vec<(String, JobState)>> {
        let stored = self.store.documents(DocumentKind::Probe).await?;
        Ok(self.jobs.list(DocumentKind::Probe, stored))
    }

    /// Deletes a probe, and cancels its training.
    pub async fn remove(&self, name: &ProbeName) -> Result<()> {
        let key = DocumentKey::from(name);
        // After this no training stores the probe any more.
        let known = self.jobs.forget(key).await;
        let removed = self.store.remove_document(key).await?;
        if known || removed {
            return Ok(());
        }
        Err(key.missing())
    }

    async fn stored(&self, extractor: &Extractor, name: &ProbeName) -> Result<Option<StoredProbe>> {
        let Some(document) = self.store.document(name.into()).await? else {
            return Ok(None);
        };
        // A probe of many classes has megabytes.
        let decode = move || StoredProbe::decode(&document).map(Some);
        let decoded = extractor.on_blocking_thread("reading a probe", decode);
        decoded.await
    }
}

/// Begins a message on the features that a probe takes.
fn takes(name: &ProbeName) -> String {
    format!("the probe `{name}` takes")
}
