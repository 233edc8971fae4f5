//! Feature extraction: files are prepared on blocking threads, then go through the engine, unless
//! the cache has their features.
//!
//! Without a cache, features for maps are still kept for two seconds, since a client that asks for
//! one map of a photograph often asks for others at the same time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::{
    cache::{CacheBytes, FeatureCache},
    cached_features::CachedFeatures,
    decoding_budget::DecodingBudget,
    images::{ImageLimits, Preparation, Prepared},
    read_shares::client,
    stages::{Stages, Timed},
};
use crate::{
    engine::{Engine, RequestedOutputs, available_cores},
    error::{Kind, Result, ResultExt},
    model::{Fingerprint, ModelId},
    telemetry,
    vision::Preprocessing,
};

/// Features of images by one model. Clones are cheap and share the cache.
#[derive(Debug, Clone)]
pub struct Extractor {
    engine: Engine,
    limits: ImageLimits,
    cache: Option<Cache>,
    /// Permits for work on pixels, one per core. The work itself holds the permit, as it continues
    /// after the client has disconnected.
    pixel_permits: Arc<Semaphore>,
    decoding_budget: DecodingBudget,
}

/// Features of recent requests.
#[derive(Debug, Clone)]
struct Cache {
    features: FeatureCache<CacheKey, CachedFeatures>,
    /// Whether it is for maps only. Then a client gets only what it asked for itself, since the
    /// time of an answer would reveal what others send.
    of_maps: bool,
}

/// Time for which features of maps are kept without a cache.
const RECENT: Duration = Duration::from_secs(2);

/// Extraction of features from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ExtractRequest {
    pub(super) preparation: Preparation,
    pub(super) outputs: RequestedOutputs,
    /// Whether to keep the image that the model gets.
    pub(super) with_image: bool,
}

/// Identity of an extraction. It has the whole SHA-256 of the file, not a part of it, so two files
/// share a key only if SHA-256 is broken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    file: [u8; 32],
    fingerprint: Fingerprint,
    request: ExtractRequest,
    client: Option<Arc<str>>,
}

impl Cache {
    fn new(bytes: CacheBytes) -> Option<Self> {
        let of_maps = bytes.all == 0;
        let (capacity, time) = match of_maps {
            true => (bytes.recent, Some(RECENT)),
            false => (bytes.all, None),
        };
        (capacity > 0).then(|| Self {
            features: FeatureCache::new(capacity, time, CachedFeatures::bytes),
            of_maps,
        })
    }
}

impl ExtractRequest {
    /// What all maps need, so that they share an entry of the cache.
    pub(super) fn for_maps(preparation: Preparation) -> Self {
        Self {
            preparation,
            outputs: RequestedOutputs {
                attention: true,
                ..RequestedOutputs::PATCH_TOKENS
            },
            with_image: true,
        }
    }

    fn is_for_maps(&self) -> bool {
        *self == Self::for_maps(self.preparation)
    }
}

impl Extractor {
    /// Creates an extractor on a running engine.
    pub fn new(engine: Engine, limits: ImageLimits, cache: CacheBytes) -> Self {
        Self {
            engine,
            limits,
            cache: Cache::new(cache),
            pixel_permits: Arc::new(Semaphore::new(available_cores())),
            decoding_budget: DecodingBudget::new(limits.max_decoding_bytes),
        }
    }

    /// Sets the maximum time that an image waits for memory to be decoded in.
    #[must_use]
    pub fn with_max_wait(self, max_wait: Duration) -> Self {
        Self {
            decoding_budget: self.decoding_budget.with_max_wait(max_wait),
            ..self
        }
    }

    /// Returns an extractor for another model, with the same limits, cache and permits.
    #[must_use]
    pub fn with_engine(&self, engine: Engine) -> Self {
        Self {
            engine,
            ..self.clone()
        }
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the name of the model.
    pub fn name(&self) -> &str {
        &self.engine.spec().name
    }

    /// Returns the name and fingerprint of the model.
    pub fn id(&self) -> &ModelId {
        self.engine.model_id()
    }

    /// Returns the limits on images.
    pub(crate) fn limits(&self) -> &ImageLimits {
        &self.limits
    }

    /// Returns the bytes that the cache uses.
    pub async fn cached_bytes(&self) -> u64 {
        match &self.cache {
            Some(cache) => cache.features.bytes().await,
            None => 0,
        }
    }

    /// Runs CPU-bound work on a blocking thread as soon as a core is free. `what` names the work in
    /// an error.
    pub async fn on_blocking_thread<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.pixel_permits.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.internal(what)?
    }

    /// Extracts the features of a file.
    pub(super) async fn extract(
        &self,
        file: Bytes,
        request: ExtractRequest,
    ) -> Result<Timed<Arc<CachedFeatures>>> {
        // A model that loads or has failed costs nothing and keeps no other waiting.
        self.engine.state().require_ready()?;
        let result = self.find_or_infer(file, request).await;
        telemetry::metrics().count_image(self.name(), result.is_ok());
        result
    }

    /// Extracts the features of a file, and waits where a request would be refused because others
    /// have the memory or the queue.
    pub(super) async fn extract_patiently(
        &self,
        file: Bytes,
        request: ExtractRequest,
    ) -> Result<Timed<Arc<CachedFeatures>>> {
        loop {
            match self.extract(file.clone(), request).await {
                Err(error) if error.kind() == Kind::Overloaded => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                result => return result,
            }
        }
    }

    async fn find_or_infer(
        &self,
        file: Bytes,
        request: ExtractRequest,
    ) -> Result<Timed<Arc<CachedFeatures>>> {
        let (memory, key) = self.inspect(file.clone(), request).await?;
        let (Some(cache), Some(key)) = (&self.cache, key) else {
            return self.infer_file(file, request, memory).await;
        };
        let mut stages = None;
        let compute = async {
            let computed = self.infer_file(file, request, memory).await?;
            stages = Some(computed.stages);
            Ok(computed.value)
        };
        let found = cache.features.get_or_compute(key, compute).await;
        let is_miss = stages.is_some() || found.is_err();
        let outcome = if is_miss { "miss" } else { "hit" };
        let lookups = &telemetry::metrics().cache_lookups;
        lookups.with_label_values(&[outcome]).inc();
        let value = found?;
        let stages = stages.unwrap_or_else(|| Stages {
            has_dim_image: value.is_dim,
            ..Stages::default()
        });
        Ok(Timed { value, stages })
    }

    /// Reads the header of a file. Returns the memory that preparing it takes, in bytes, and its
    /// key in the cache if it belongs there.
    async fn inspect(
        &self,
        file: Bytes,
        request: ExtractRequest,
    ) -> Result<(u64, Option<CacheKey>)> {
        let limits = self.limits;
        let patch = self.engine.spec().architecture.patch;
        let cache = self.cache.as_ref();
        let is_kept = cache.is_some_and(|cache| !cache.of_maps || request.is_for_maps());
        let client = cache.filter(|cache| cache.of_maps).and_then(|_| client());
        let fingerprint = self.id().fingerprint.clone();
        self.on_blocking_thread("reading the header of an image", move || {
            let memory = request.preparation.memory(&file, patch, &limits)?;
            let key = is_kept.then(|| CacheKey {
                file: Sha256::digest(&file).into(),
                fingerprint,
                request,
                client,
            });
            Ok((memory, key))
        })
        .await
    }

    /// Computes the features of a file.
    async fn infer_file(
        &self,
        file: Bytes,
        request: ExtractRequest,
        memory: u64,
    ) -> Result<Timed<Arc<CachedFeatures>>> {
        let prepared = self.prepare(file, request, memory).await?;
        self.infer(prepared, request).await
    }

    /// Decodes and resizes a file as soon as there is memory, and then a core for it. Work that
    /// waits for memory holds no core, so the two cannot wait for each other.
    async fn prepare(
        &self,
        file: Bytes,
        request: ExtractRequest,
        memory: u64,
    ) -> Result<Timed<Prepared>> {
        let limits = self.limits;
        let patch = self.engine.spec().architecture.patch;
        let span = tracing::info_span!("prepare");
        let share = self.decoding_budget.take(memory).await?;
        self.on_blocking_thread("preparing an image", move || {
            let _share = share;
            let _span = span.entered();
            request.preparation.prepare(&file, patch, &limits)
        })
        .await
    }

    /// Takes `bytes` of the memory for decoding until the permit is dropped, for what is as large
    /// as a photograph.
    pub(super) async fn take_memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        self.decoding_budget.take(bytes).await
    }

    /// Makes a thumbnail of the whole image of a file, whose longer side is `side` pixels.
    pub(super) async fn thumbnail(
        &self,
        file: Bytes,
        preprocessing: Preprocessing,
        side: usize,
    ) -> Result<Bytes> {
        let limits = ImageLimits {
            max_patches: usize::MAX,
            ..self.limits
        };
        let preparation = Preparation::of_thumbnail(preprocessing, side);
        let header = file.clone();
        let memory = self
            .on_blocking_thread("reading the header of an image", move || {
                preparation.thumbnail_memory(&header, &limits)
            })
            .await?;
        let share = self.decoding_budget.take(memory).await?;
        self.on_blocking_thread("making a thumbnail", move || {
            let _share = share;
            preparation.thumbnail(&file, &limits)
        })
        .await
    }

    async fn infer(
        &self,
        prepared: Timed<Prepared>,
        request: ExtractRequest,
    ) -> Result<Timed<Arc<CachedFeatures>>> {
        let Prepared { input, placement } = prepared.value;
        let inference = self.engine.infer(input, request.outputs);
        let (model_input, features) = inference.instrument(tracing::info_span!("infer")).await?;
        let stages = Stages {
            queue: features.queue_time,
            inference: features.inference_time,
            ..prepared.stages
        };
        let image = request.with_image.then_some(model_input.pixels);
        let value = Arc::new(CachedFeatures {
            features,
            image,
            placement,
            is_dim: stages.has_dim_image,
        });
        Ok(Timed { value, stages })
    }
}
