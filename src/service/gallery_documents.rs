//! What jobs make of whole galleries: reports of audits, and maps. Each is a document of the store,
//! which is renamed and deleted with its gallery.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::task::spawn_blocking;

use super::{
    galleries::GalleryLimits,
    jobs::{Job, JobState, Jobs, on_low_priority_thread},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    features::progress::{Progress, Stage},
    gallery::{DocumentKey, Gallery, GalleryInfo, GalleryName, Item, Parts, read_whole},
};

/// A document of a gallery.
pub(super) trait GalleryDocument: Sized + Send + 'static {
    /// Returns the key of a gallery's document.
    fn key(gallery: &GalleryName) -> DocumentKey<'_>;

    /// Decodes the document.
    fn decode(document: &[u8]) -> Result<Self>;

    /// Returns the number of the gallery that it was made of.
    fn gallery(&self) -> u64;
}

/// The documents of a store's galleries. Clones share them and the job in progress.
#[derive(Debug, Clone)]
pub(super) struct GalleryDocuments {
    store: Gallery,
    limits: GalleryLimits,
    jobs: Jobs,
}

/// A gallery whose document is made.
pub(super) struct Making {
    pub(super) store: Gallery,
    pub(super) name: GalleryName,
    /// Description of the gallery when the document was requested.
    pub(super) info: GalleryInfo,
    /// Maximum number of items.
    pub(super) max: usize,
}

impl GalleryDocuments {
    /// Returns the documents of a store, which are made among `jobs`.
    pub(super) fn new(store: Gallery, limits: GalleryLimits, jobs: Jobs) -> Self {
        Self {
            store,
            limits,
            jobs,
        }
    }

    /// Returns the store.
    pub(super) fn store(&self) -> &Gallery {
        &self.store
    }

    /// Starts a job that makes a document.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] during another job; [`Kind::TooLarge`] for a gallery of more items than
    /// the limit.
    pub(super) async fn start<T: GalleryDocument, F>(
        &self,
        name: &GalleryName,
        work: impl FnOnce(Making, Arc<Job>) -> F,
    ) -> Result<Arc<Job>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.jobs.check_free()?;
        let info = self.store.require_gallery(name).await?;
        let max = self.limits.max_compared_items;
        if info.items > max as u64 {
            return Err(too_many_to_compare(name, max));
        }
        let items = info.items as usize;
        let making = Making {
            store: self.store.clone(),
            name: name.clone(),
            info,
            max,
        };
        let work = |job| work(making, job);
        self.jobs.start(T::key(name), items, work)
    }

    /// Returns the state of a document, and the last one if none is being made.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a gallery that does not exist or has no document.
    pub(super) async fn get<T: GalleryDocument>(
        &self,
        name: &GalleryName,
    ) -> Result<(JobState, Option<T>)> {
        // The state is read first: a job that ends after that has stored its document.
        let state = self.jobs.state(T::key(name));
        let info = self.store.require_gallery(name).await?;
        if let Some(state @ JobState::InProgress(_)) = state {
            return Ok((state, None));
        }
        let stored = stored::<T>(&self.store, name, info.number).await?;
        match (state, stored) {
            (None, None) => Err(missing::<T>(name)),
            (state, stored) => Ok((state.unwrap_or(JobState::Ready), stored)),
        }
    }

    /// Returns the last document.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without one, or while the next one is made.
    pub(super) async fn ready<T: GalleryDocument>(&self, name: &GalleryName) -> Result<T> {
        let (_, stored) = self.get(name).await?;
        stored.ok_or_else(|| self.jobs.not_ready(T::key(name)))
    }

    /// Cancels the job that makes a document, if it is in progress. Deletes the document otherwise.
    pub(super) async fn remove<T: GalleryDocument>(&self, name: &GalleryName) -> Result<()> {
        let key = T::key(name);
        let runs = matches!(self.jobs.state(key), Some(JobState::InProgress(_)));
        let known = self.jobs.forget(key).await;
        if runs || self.store.remove_document(key).await? || known {
            return Ok(());
        }
        self.store.require_gallery(name).await?;
        Err(missing::<T>(name))
    }

    /// Cancels the job that makes a document of a gallery, if one is in progress, and forgets
    /// failures.
    pub(super) async fn cancel(&self, name: &GalleryName) {
        for key in DocumentKey::of_gallery(name) {
            self.jobs.forget(key).await;
        }
    }
}

impl Making {
    /// Returns the last document, if there is one that can be read.
    pub(super) async fn last<T: GalleryDocument>(&self) -> Option<T> {
        let stored = stored(&self.store, &self.name, self.info.number).await;
        stored.unwrap_or_else(|error| {
            tracing::warn!(%error, "the {} is made again", T::key(&self.name));
            None
        })
    }

    /// Makes the document with `work`, on a thread of low priority, and stores it. `work` returns
    /// `None` if the job was cancelled.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another gallery has got the name meanwhile.
    pub(super) async fn make<T: GalleryDocument>(
        self,
        job: &Job,
        work: impl FnOnce() -> Result<Option<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let document = on_low_priority_thread(work)
            .await??
            .filter(|_| !job.is_stopped())
            .ok_or_else(|| job.cancelled())?;
        let name = &self.name;
        if self.store.require_gallery(name).await?.number != self.info.number {
            let detail = format!("the gallery `{name}` was replaced meanwhile; start again");
            return Err(Error::new(Kind::Conflict, detail));
        }
        // Where one is replaced just now, the document is not shown: it has the number of the
        // gallery.
        self.store.put_document(T::key(name), document).await
    }
}

/// Reads a document of a gallery, unless it was made of another one that had the name.
async fn stored<T: GalleryDocument>(
    store: &Gallery,
    name: &GalleryName,
    number: u64,
) -> Result<Option<T>> {
    let Some(document) = store.document(T::key(name)).await? else {
        return Ok(None);
    };
    let decoded = spawn_blocking(move || T::decode(&document)).await;
    let decoded = decoded.internal("reading a document")??;
    Ok(Some(decoded).filter(|decoded| decoded.gallery() == number))
}

fn missing<T: GalleryDocument>(name: &GalleryName) -> Error {
    let key = T::key(name);
    let detail = format!("there is no {key}; start one with POST {}", key.path());
    Error::new(Kind::NotFound, detail)
}

/// Reads the items of a gallery with their vectors, `max` at most, and passes them to `each`. False
/// if `watch` ends it.
///
/// # Errors
/// [`Kind::TooLarge`] for more items; [`Kind::Damaged`] for a vector that is no direction of the
/// gallery's width.
pub(super) async fn read_vectors(
    store: &Gallery,
    name: &GalleryName,
    max: Option<usize>,
    watch: &(dyn Fn(Progress) -> bool + Sync),
    mut each: impl FnMut(Item, &[f32]) -> Result<()>,
) -> Result<bool> {
    let parts = Parts {
        vector: true,
        ..Parts::NONE
    };
    let (info, mut items) = read_whole(store, name, parts).await?;
    let total = info.items as usize;
    let mut done = 0;
    while let Some(stored) = items.try_next().await? {
        if let Some(max) = max.filter(|&max| done >= max) {
            return Err(too_many_to_compare(name, max));
        }
        let (item, vector) = (stored.item, stored.vector);
        if vector.len() != info.binding.dim || !vector.iter().all(|value| value.is_finite()) {
            let id = item.id.as_str();
            let detail = format!(
                "the vector of the item {id:?} of the gallery `{name}` is damaged; store the item \
                 again, or delete it"
            );
            return Err(Error::damaged(detail));
        }
        each(item, &vector)?;
        done += 1;
        // More may have been stored meanwhile.
        let progress = Progress::new(Stage::Reading, done.min(total), Some(total));
        if done.is_multiple_of(256) && !watch(progress) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the error for a gallery of too many items.
fn too_many_to_compare(name: &GalleryName, max: usize) -> Error {
    let detail = format!(
        "the gallery `{name}` has more than {max} items, whose comparison with each other takes \
         more memory and time than is allowed; raise the limit"
    );
    let error = Error::new(Kind::TooLarge, detail);
    error.with_limit("max_compared_items", max as u64, "--max-compared-items")
}
