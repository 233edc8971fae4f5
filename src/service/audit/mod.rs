//! Audits of images that have vectors: those of a folder, or of a gallery, where they are jobs.
//!
//! The report of a gallery's last audit is kept in the gallery's store until the next one is ready,
//! or the gallery is deleted.

mod report;
mod set;
mod stored;

use std::{num::NonZero, sync::Arc};

use tokio::task::spawn_blocking;

pub use self::{
    report::{AuditReport, ClusterOfImages, Duplicates, MislabeledImage, OutlierImage},
    set::AuditSet,
    stored::StoredAudit,
};
use super::{
    galleries::GalleryLimits,
    jobs::{Job, JobState, Jobs, now_ms, on_low_priority_thread},
};
use crate::{
    engine::available_cores,
    error::{Error, Kind, Result, ResultExt},
    features::audit::AuditOptions,
    gallery::{Binding, DocumentKey, Gallery, GalleryName},
};

/// The audits of a store's galleries. Clones share them and the one in progress.
#[derive(Debug, Clone)]
pub struct Audits {
    store: Gallery,
    limits: GalleryLimits,
    jobs: Jobs,
}

impl Audits {
    /// Returns the audits of a store, which are made among `jobs`.
    pub(super) fn new(store: Gallery, limits: GalleryLimits, jobs: Jobs) -> Self {
        Self {
            store,
            limits,
            jobs,
        }
    }

    /// Starts the audit of a gallery, and returns a handle to the job. The report replaces that of
    /// the last audit.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] during another job; [`Kind::TooLarge`] for a gallery of more items than
    /// the limit.
    pub async fn start(&self, name: &GalleryName, options: AuditOptions) -> Result<Arc<Job>> {
        options.check()?;
        self.jobs.check_free()?;
        let info = self.store.require_gallery(name).await?;
        let max = self.limits.max_audit_items;
        if info.items > max as u64 {
            return Err(set::too_many(name, max));
        }
        let work = Work {
            store: self.store.clone(),
            name: name.clone(),
            binding: info.binding,
            options,
            max,
        };
        let items = info.items as usize;
        self.jobs.start(name.into(), items, |job| work.run(job))
    }

    /// Returns the state of a gallery's audit, and the report of the last one if none is in
    /// progress.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a gallery that does not exist or was not audited.
    pub async fn get(&self, name: &GalleryName) -> Result<(JobState, Option<StoredAudit>)> {
        let key = DocumentKey::from(name);
        // The state is read first: a job that ends after that has stored its report.
        let state = self.jobs.state(key);
        let info = self.store.require_gallery(name).await?;
        if let Some(state @ JobState::InProgress(_)) = state {
            return Ok((state, None));
        }
        let stored = match self.store.document(key).await? {
            Some(document) => {
                let decoded = spawn_blocking(move || StoredAudit::decode(&document)).await;
                let stored = decoded.internal("reading an audit")??;
                // Another gallery may have got the name.
                Some(stored).filter(|stored| stored.binding == info.binding)
            }
            None => None,
        };
        match (state, stored) {
            (None, None) => Err(no_audit(name)),
            (state, stored) => Ok((state.unwrap_or(JobState::Ready), stored)),
        }
    }

    /// Returns the report of a gallery's last audit.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without one, or while the next one is made.
    pub async fn report(&self, name: &GalleryName) -> Result<AuditReport> {
        let (_, stored) = self.get(name).await?;
        let stored = stored.ok_or_else(|| self.jobs.not_ready(name.into()))?;
        Ok(stored.report)
    }

    /// Cancels the audit of a gallery, and deletes its report.
    pub async fn remove(&self, name: &GalleryName) -> Result<()> {
        let key = DocumentKey::from(name);
        // After this no job stores the report any more.
        let known = self.jobs.forget(key).await;
        let removed = self.store.remove_document(key).await?;
        if known || removed {
            return Ok(());
        }
        self.store.require_gallery(name).await?;
        Err(no_audit(name))
    }

    /// Cancels the audit of a gallery, if one is in progress.
    pub(super) async fn cancel(&self, name: &GalleryName) {
        self.jobs.forget(name.into()).await;
    }
}

fn no_audit(name: &GalleryName) -> Error {
    let key = DocumentKey::from(name);
    let detail = format!("there is no {key}; start one with POST {}", key.path());
    Error::new(Kind::NotFound, detail)
}

/// An audit with all that it needs.
struct Work {
    store: Gallery,
    name: GalleryName,
    /// Binding of the gallery when the audit was requested.
    binding: Binding,
    options: AuditOptions,
    max: usize,
}

impl Work {
    async fn run(self, job: Arc<Job>) -> Result<()> {
        let Self {
            store,
            name,
            binding,
            options,
            max,
        } = self;
        let watch = |progress| job.advance(progress);
        let set = AuditSet::of_gallery(&store, &name, Some(max), &watch).await?;
        let set = set.ok_or_else(|| job.cancelled())?;
        // The other cores are left to requests, which go first on these, too.
        let threads = NonZero::new(available_cores() / 2).unwrap_or(NonZero::<usize>::MIN);
        let observer = Arc::clone(&job);
        let of = binding.clone();
        let audit = move || {
            let watch = &mut |progress| observer.advance(progress);
            let report = set.audit(&options, threads, watch)?;
            drop(set);
            let made_ms = now_ms();
            let stored = |report| StoredAudit {
                options,
                made_ms,
                binding: of,
                report,
            };
            report.map(stored).map(|stored| stored.encode()).transpose()
        };
        let document = on_low_priority_thread(audit)
            .await??
            .filter(|_| !job.is_stopped())
            .ok_or_else(|| job.cancelled())?;
        // Another gallery may have got the name meanwhile.
        let info = store.require_gallery(&name).await?;
        info.binding.check(&name, &binding)?;
        store.put_document((&name).into(), document).await
    }
}
