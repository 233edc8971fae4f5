//! Results that are kept: the same file with the same options does not go through the model twice.

use std::sync::Arc;

use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::images::{CachedFeatures, Preparation};
use crate::{engine::RequestedOutputs, telemetry};

/// What a view depends on. The whole hash of the file is compared, not a part of it, so that two
/// images share a key only if SHA-256 fails.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    file: [u8; 32],
    fingerprint: Arc<str>,
    preparation: Preparation,
    wanted: RequestedOutputs,
    with_photo: bool,
}

/// The most valuable views, within a budget of memory; least recently and least often used ones go
/// first. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ViewCache {
    views: Cache<Key, Arc<CachedFeatures>>,
    fingerprint: Arc<str>,
}

impl ViewCache {
    /// A cache of at most `bytes` bytes for a model's views.
    pub(super) fn new(bytes: u64, fingerprint: &str) -> Self {
        let weigh =
            |_: &Key, view: &Arc<CachedFeatures>| u32::try_from(view.bytes()).unwrap_or(u32::MAX);
        let views = Cache::builder().max_capacity(bytes).weigher(weigh).build();
        Self {
            views,
            fingerprint: fingerprint.into(),
        }
    }

    /// The same cache for another model, whose views are others.
    pub(super) fn for_model(&self, fingerprint: &str) -> Self {
        Self {
            views: self.views.clone(),
            fingerprint: fingerprint.into(),
        }
    }

    pub(super) fn key(
        &self,
        file: &[u8],
        preparation: Preparation,
        wanted: RequestedOutputs,
        with_photo: bool,
    ) -> Key {
        let file = Sha256::digest(file).into();
        Key {
            file,
            fingerprint: Arc::clone(&self.fingerprint),
            preparation,
            wanted,
            with_photo,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<CachedFeatures>> {
        let found = self.views.get(key);
        let outcome = if found.is_some() { "hit" } else { "miss" };
        telemetry::metrics()
            .cache_lookups
            .with_label_values(&[outcome])
            .inc();
        found
    }

    pub(super) fn put(&self, key: Key, view: &Arc<CachedFeatures>) {
        self.views.insert(key, Arc::clone(view));
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.views.run_pending_tasks();
        self.views.weighted_size()
    }
}
