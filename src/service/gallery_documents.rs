//! What jobs make of whole galleries: reports of audits, and maps. Each is a document of the store,
//! which is renamed and deleted with its gallery.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{
    galleries::GalleryLimits,
    jobs::{Job, JobState, Jobs},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    gallery::{Binding, DocumentKey, Gallery, GalleryInfo, GalleryName},
};

/// A document of a gallery.
pub(super) trait GalleryDocument: Sized + Send + 'static {
    /// Returns the key of a gallery's document.
    fn key(gallery: &GalleryName) -> DocumentKey<'_>;

    /// Decodes the document.
    fn decode(document: &[u8]) -> Result<Self>;

    /// Returns the binding of the gallery when the document was made.
    fn binding(&self) -> &Binding;
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
        let stored = stored::<T>(&self.store, name, &info.binding).await?;
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

    /// Cancels the job of a document, and deletes the document.
    pub(super) async fn remove<T: GalleryDocument>(&self, name: &GalleryName) -> Result<()> {
        // After this no job stores the document any more.
        let known = self.jobs.forget(T::key(name)).await;
        let removed = self.store.remove_document(T::key(name)).await?;
        if known || removed {
            return Ok(());
        }
        self.store.require_gallery(name).await?;
        Err(missing::<T>(name))
    }

    /// Cancels the job that makes a document of a gallery, if one is in progress.
    pub(super) async fn cancel(&self, name: &GalleryName) {
        for key in [DocumentKey::of_audit(name), DocumentKey::of_map(name)] {
            self.jobs.forget(key).await;
        }
    }
}

impl Making {
    /// Returns the last document, if there is one.
    pub(super) async fn last<T: GalleryDocument>(&self) -> Result<Option<T>> {
        stored(&self.store, &self.name, &self.info.binding).await
    }

    /// Stores the document, unless another gallery has got the name meanwhile.
    pub(super) async fn put<T: GalleryDocument>(self, document: Bytes) -> Result<()> {
        let info = self.store.require_gallery(&self.name).await?;
        info.binding.check(&self.name, &self.info.binding)?;
        let key = T::key(&self.name);
        self.store.put_document(key, document).await
    }
}

/// Reads a document of a gallery, unless it was made of another one that had the name.
async fn stored<T: GalleryDocument>(
    store: &Gallery,
    name: &GalleryName,
    binding: &Binding,
) -> Result<Option<T>> {
    let Some(document) = store.document(T::key(name)).await? else {
        return Ok(None);
    };
    let decoded = spawn_blocking(move || T::decode(&document)).await;
    let decoded = decoded.internal("reading a document")??;
    Ok(Some(decoded).filter(|decoded| decoded.binding() == binding))
}

fn missing<T: GalleryDocument>(name: &GalleryName) -> Error {
    let key = T::key(name);
    let detail = format!("there is no {key}; start one with POST {}", key.path());
    Error::new(Kind::NotFound, detail)
}

/// Returns the error for a gallery of too many items.
pub(super) fn too_many_to_compare(name: &GalleryName, max: usize) -> Error {
    let detail = format!(
        "the gallery `{name}` has more than {max} items, whose comparison with each other takes \
         more memory and time than is allowed; raise the limit"
    );
    let error = Error::new(Kind::TooLarge, detail);
    error.with_limit("max_compared_items", max as u64, "--max-compared-items")
}
