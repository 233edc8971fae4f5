//! A cache within a memory budget.

use std::{fmt, hash::Hash, sync::Arc};

use moka::sync::Cache;

use crate::telemetry;

/// Cache of features. It evicts the least recently and least frequently used entries. Clones share
/// the entries.
#[derive(Clone)]
pub(super) struct FeatureCache<K, V>(Cache<K, Arc<V>>);

impl<K, V> FeatureCache<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Creates a cache of at most `capacity` bytes. `weigh` returns the bytes of an entry.
    pub(super) fn new(capacity: u64, weigh: fn(&V) -> usize) -> Self {
        let cache = Cache::builder()
            .max_capacity(capacity)
            .weigher(move |_, value: &Arc<V>| u32::try_from(weigh(value)).unwrap_or(u32::MAX));
        Self(cache.build())
    }

    /// Looks up an entry, and counts the hit or miss in the metrics.
    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        let found = self.0.get(key);
        let outcome = if found.is_some() { "hit" } else { "miss" };
        let lookups = &telemetry::metrics().cache_lookups;
        lookups.with_label_values(&[outcome]).inc();
        found
    }

    /// Adds an entry.
    pub(super) fn insert(&self, key: K, value: Arc<V>) {
        self.0.insert(key, value);
    }

    /// Returns the bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.weighted_size()
    }
}

impl<K, V> fmt::Debug for FeatureCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeatureCache").finish_non_exhaustive()
    }
}
