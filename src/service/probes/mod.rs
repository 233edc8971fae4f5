//! Linear probes on the items of a gallery: trained in the background, one at a time, and kept in
//! the gallery's store.
//!
//! What is kept is in the store, so it outlives this process and other servers on the store use it,
//! too. What is under way, and why a training failed, only this process knows.

mod classify;
mod stored;
mod training;

use std::{collections::BTreeSet, sync::Arc};

pub(super) use self::training::Trainings;
pub use self::{
    stored::{Origin, ProbeFeatures, StoredProbe},
    training::Training,
};
use super::Service;
use crate::{
    error::{Error, Kind, Result},
    features::probe::{Progress, TrainingOptions},
    gallery::{DocumentKey, DocumentKind, GalleryName, ItemFilter, ProbeName},
};

/// What is to be trained.
#[derive(Debug, Clone)]
pub struct ProbePlan {
    /// Name of the probe. One that has the name already is replaced when the new one is ready.
    pub name: ProbeName,
    /// Whose items it learns from.
    pub gallery: GalleryName,
    /// What it takes.
    pub features: ProbeFeatures,
    /// How it is trained.
    pub options: TrainingOptions,
    /// Only the items that pass.
    pub filter: Option<ItemFilter>,
}

/// What is going on with a probe.
#[derive(Debug, Clone)]
pub enum ProbeState {
    /// It is being trained.
    Training(Progress),
    /// It can be used.
    Ready,
    /// Its last training failed.
    Failed(Arc<Error>),
}

impl ProbeState {
    /// The state in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Training(_) => "training",
            Self::Ready => "ready",
            Self::Failed(_) => "failed",
        }
    }
}

impl Service {
    /// Begins to train a probe, and gives the training to look at.
    ///
    /// # Errors
    /// At once: [`Kind::NotFound`] if there is no such gallery, [`Kind::Conflict`] if its features
    /// are not those of the model, [`Kind::InvalidOption`] for options out of range,
    /// [`Kind::Overloaded`] while another training is under way. What only the items tell is an
    /// error of the training.
    pub async fn train_probe(&self, plan: ProbePlan) -> Result<Arc<Training>> {
        plan.options.check()?;
        let store = self.gallery()?;
        let info = store.require_gallery(&plan.gallery).await?;
        let spec = self.extractor.engine().spec();
        let holder = format_args!("the gallery `{}`", plan.gallery);
        let advice = "train a probe on another gallery";
        info.binding
            .model
            .require(self.extractor.engine().model_id(), holder, advice)?;
        self.trainings.begin(
            store.clone(),
            info,
            plan,
            spec.architecture.dim,
            self.gallery_limits,
        )
    }

    /// What is going on with a probe, and what is stored of it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if nothing is known of it.
    pub async fn probe(&self, name: &ProbeName) -> Result<(ProbeState, Option<StoredProbe>)> {
        // In this order: a training that ends meanwhile has stored its probe before.
        let state = self.trainings.state(name);
        match (state, self.stored_probe(name).await?) {
            (state, Some(stored)) => Ok((state.unwrap_or(ProbeState::Ready), Some(stored))),
            (Some(state), None) => Ok((state, None)),
            (None, None) => Err(DocumentKey::from(name).missing()),
        }
    }

    /// The probe of that name, to be used.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it is not there or not ready; [`Kind::Conflict`] if it takes the
    /// features of another model.
    pub async fn ready_probe(&self, name: &ProbeName) -> Result<StoredProbe> {
        // It is read each time: another server on the store may have replaced it a moment ago.
        let stored =
            self.stored_probe(name)
                .await?
                .ok_or_else(|| match self.trainings.state(name) {
                    Some(state) => {
                        let detail = format!(
                            "the probe `{name}` is not ready: {}; see GET /v1/probes/{name}",
                            state.name()
                        );
                        Error::new(Kind::NotFound, detail)
                    }
                    None => DocumentKey::from(name).missing(),
                })?;
        let holder = format_args!("the probe `{name}`");
        let advice = "train a probe on a gallery of this one";
        let model = &stored.about.binding.model;
        model.require(self.extractor.engine().model_id(), holder, advice)?;
        Ok(stored)
    }

    /// The state of all probes, by name.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn probes(&self) -> Result<Vec<(ProbeName, ProbeState)>> {
        let mut names: BTreeSet<ProbeName> = self.trainings.names();
        for name in self.gallery()?.documents(DocumentKind::Probe).await? {
            names.insert(ProbeName::new(name)?);
        }
        let with_state = |name: ProbeName| {
            let state = self.trainings.state(&name).unwrap_or(ProbeState::Ready);
            (name, state)
        };
        Ok(names.into_iter().map(with_state).collect())
    }

    /// Deletes a probe, and ends its training if that is under way.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if nothing is known of it.
    pub async fn remove_probe(&self, name: &ProbeName) -> Result<()> {
        let store = self.gallery()?;
        // When this has come back, no training will store it any more.
        let known = self.trainings.forget(name).await;
        let stored = store.remove_document(name.into()).await?;
        if known || stored {
            Ok(())
        } else {
            Err(DocumentKey::from(name).missing())
        }
    }

    /// Ends the training that is under way, if one is, and waits until it has. Nothing of it is
    /// stored.
    pub async fn stop_training(&self) {
        self.trainings.stop().await;
    }

    async fn stored_probe(&self, name: &ProbeName) -> Result<Option<StoredProbe>> {
        let Some(document) = self.gallery()?.document(name.into()).await? else {
            return Ok(None);
        };
        // Megabytes, with many classes.
        self.extractor
            .on_blocking_thread("reading a probe", move || StoredProbe::decode(&document))
            .await
            .map(Some)
    }
}
