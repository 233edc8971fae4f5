//! Audits of images that have vectors: those of a folder, or of a gallery, where they are jobs.

mod report;
mod set;
mod stored;

use std::sync::Arc;

pub use self::{
    report::{AuditReport, ClusterOfImages, Duplicates, MislabeledImage, OutlierImage},
    set::AuditSet,
    stored::StoredAudit,
};
use super::{
    gallery_documents::{GalleryDocuments, Making},
    jobs::{Job, JobState, job_threads, now_ms},
};
use crate::{error::Result, features::audit::AuditOptions, gallery::GalleryName};

/// The audits of a store's galleries. Clones share them and the one in progress.
#[derive(Debug, Clone)]
pub struct Audits(pub(super) GalleryDocuments);

impl Audits {
    /// Starts the audit of a gallery, and returns a handle to the job. The report replaces that of
    /// the last audit.
    ///
    /// # Errors
    /// [`Kind::Overloaded`](crate::error::Kind::Overloaded) during another job;
    /// [`Kind::TooLarge`](crate::error::Kind::TooLarge) for a gallery of more items than the limit.
    pub async fn start(&self, name: &GalleryName, options: AuditOptions) -> Result<Arc<Job>> {
        options.check()?;
        let work = |making, job| audit(making, options, job);
        self.0.start::<StoredAudit, _>(name, work).await
    }

    /// Returns the state of a gallery's audit, and the report of the last one if none is in
    /// progress.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::error::Kind::NotFound) for a gallery that does not exist or was
    /// not audited.
    pub async fn get(&self, name: &GalleryName) -> Result<(JobState, Option<StoredAudit>)> {
        self.0.get(name).await
    }

    /// Returns the report of a gallery's last audit.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::error::Kind::NotFound) without one, or while the next one is made.
    pub async fn report(&self, name: &GalleryName) -> Result<AuditReport> {
        Ok(self.0.ready::<StoredAudit>(name).await?.report)
    }

    /// Cancels the audit of a gallery, if it is in progress. Deletes the report otherwise.
    pub async fn remove(&self, name: &GalleryName) -> Result<()> {
        self.0.remove::<StoredAudit>(name).await
    }
}

/// Audits a gallery, and stores the report.
async fn audit(making: Making, options: AuditOptions, job: Arc<Job>) -> Result<()> {
    let watch = |progress| job.advance(progress);
    let max = Some(making.max);
    let set = AuditSet::of_gallery(&making.store, &making.name, max, &watch).await?;
    let set = set.ok_or_else(|| job.cancelled())?;
    let observer = Arc::clone(&job);
    let gallery = making.info.number;
    let audit = move || {
        let watch = &mut |progress| observer.advance(progress);
        let report = set.audit(&options, job_threads(), watch)?;
        let stored = report.map(|report| StoredAudit {
            gallery,
            options,
            made_ms: now_ms(),
            report,
        });
        stored.map(|stored| stored.encode()).transpose()
    };
    making.make::<StoredAudit>(&job, audit).await
}
