//! The use cases: from image files and options to embeddings, maps, and what a gallery knows. Knows
//! no HTTP.

mod bases;
mod binding;
mod cache;
mod classify;
mod embed;
mod gallery;
mod head_stats;
mod images;
mod insert;
mod live;
mod maps;
mod probes;
mod search;
mod similarity;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, Semaphore};

pub use self::{
    bases::{BasisImages, BasisInfo, StoredBasis},
    binding::VectorOptions,
    classify::{Classification, VoteOptions},
    embed::{EmbedOptions, Embedding},
    gallery::{GalleryLimits, Page, QueryInput},
    head_stats::ImageHeadStats,
    images::{Decoding, ImageLimits, ImageOptions},
    insert::{Inserted, NewEntry},
    live::{LiveService, LoadPlan, ModelSource, Replaced},
    maps::{
        AttentionMaps, AttentionOptions, Form, PCA_COMPONENTS, PcaAnswer, PcaOptions, Rendering,
    },
    probes::{Origin, ProbeFeatures, ProbePlan, ProbeState, StoredProbe, Training},
    search::{Answers, SearchOptions},
    similarity::{SimilarityMaps, SimilarityOptions},
};
use self::{cache::ViewCache, probes::Trainings};
use crate::{
    engine::{Engine, available_cores},
    error::{Error, Kind, Result},
    gallery::Gallery,
    telemetry,
};

/// What the edges call. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Service {
    engine: Engine,
    limits: ImageLimits,
    cache: Option<ViewCache>,
    gallery: Option<Gallery>,
    gallery_limits: GalleryLimits,
    /// Held while a basis is replaced by what it was and more.
    basis_turn: Arc<Mutex<()>>,
    trainings: Trainings,
    /// Places for work on pixels: one per core. Held by the work itself, which goes on when its
    /// client has gone.
    pixel_work: Arc<Semaphore>,
}

impl Service {
    /// A service on a running engine that keeps results in `cache_bytes` bytes of memory; 0 keeps
    /// none.
    pub fn new(engine: Engine, limits: ImageLimits, cache_bytes: u64) -> Self {
        let cache = (cache_bytes > 0).then(|| ViewCache::new(cache_bytes, engine.fingerprint()));
        let pixel_work = Arc::new(Semaphore::new(available_cores()));
        Self {
            engine,
            limits,
            cache,
            gallery: None,
            gallery_limits: GalleryLimits::default(),
            basis_turn: Arc::default(),
            trainings: Trainings::default(),
            pixel_work,
        }
    }

    /// The same, with another model.
    fn with_engine(&self, engine: Engine) -> Self {
        let cache = self
            .cache
            .as_ref()
            .map(|cache| cache.for_model(engine.fingerprint()));
        Self {
            engine,
            cache,
            ..self.clone()
        }
    }

    /// The same, with a gallery to search.
    #[must_use]
    pub fn with_gallery(self, gallery: Option<Gallery>) -> Self {
        Self { gallery, ..self }
    }

    /// The same, with other limits of galleries.
    #[must_use]
    pub fn with_gallery_limits(self, gallery_limits: GalleryLimits) -> Self {
        Self {
            gallery_limits,
            ..self
        }
    }

    /// The store of galleries.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the server was started without one.
    pub fn gallery(&self) -> Result<&Gallery> {
        self.gallery.as_ref().ok_or_else(|| {
            let detail = "this server keeps no gallery; start it with --gallery DIR or --gallery postgres://…";
            Error::new(Kind::NotFound, detail)
        })
    }

    /// Does work that takes a core for a while on a blocking thread, when a core is free for it.
    /// `what` names it in an error.
    ///
    /// # Errors
    /// The work's own; [`crate::error::Kind::Internal`] if it panics.
    pub async fn on_blocking_thread<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.pixel_work.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await
            .map_err(|error| Error::internal(format!("{what}: {error}")))?
    }

    /// Bytes of results that are kept.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.as_ref().map_or(0, ViewCache::bytes)
    }

    /// The engine under it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// How long the stages of a request took. Of several images, the longest of each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// From the file's bytes to pixels.
    pub decode: Duration,
    /// From these to the model's input.
    pub resize: Duration,
    /// In the queue.
    pub queue: Duration,
    /// In the model.
    pub inference: Duration,
    /// From the model's output to what was asked for.
    pub post: Duration,
    /// In the gallery.
    pub search: Duration,
}

impl Stages {
    /// The stages with their names. Only an answer from a gallery has a search.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let of_every_image = [
            ("decode", self.decode),
            ("resize", self.resize),
            ("queue", self.queue),
            ("inference", self.inference),
            ("post", self.post),
        ];
        let search = (!self.search.is_zero()).then_some(("search", self.search));
        of_every_image.into_iter().chain(search)
    }

    /// The longer of each stage.
    #[must_use]
    pub fn longest(self, other: Self) -> Self {
        Self {
            decode: self.decode.max(other.decode),
            resize: self.resize.max(other.resize),
            queue: self.queue.max(other.queue),
            inference: self.inference.max(other.inference),
            post: self.post.max(other.post),
            search: self.search.max(other.search),
        }
    }

    /// Stages that did not take place, as after a look into the cache, are not counted as ones that
    /// took no time.
    fn observe(&self) {
        let took_place = |(_, time): &(&str, Duration)| !time.is_zero();
        self.named()
            .filter(took_place)
            .for_each(|(stage, time)| telemetry::metrics().observe_stage(stage, time));
    }
}
