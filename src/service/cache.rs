//! A cache of results within a memory budget. Concurrent requests for one result compute it once.

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use moka::future::Cache;

use crate::error::{Error, Result};

/// Memory for cached features, in bytes. The default is no cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheBytes {
    /// For all features, which are kept as long as they fit; 0 keeps only those for maps.
    pub all: u64,
    /// For features of maps, which are kept for two seconds, if `all` is 0.
    pub recent: u64,
}

/// Cache of features and of banks. It evicts the least recently and least frequently used entries.
/// Clones share the entries.
pub(super) struct FeatureCache<K, V>(Cache<K, Arc<V>>);

impl<K, V> FeatureCache<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Creates a cache of at most `capacity` bytes, which keeps entries for `time`; `None` for as
    /// long as they fit. `weigh` returns the bytes of an entry.
    pub(super) fn new(capacity: u64, time: Option<Duration>, weigh: fn(&V) -> usize) -> Self {
        let mut cache = Cache::builder()
            .max_capacity(capacity)
            .weigher(move |_, value: &Arc<V>| u32::try_from(weigh(value)).unwrap_or(u32::MAX));
        if let Some(time) = time {
            cache = cache.time_to_live(time);
        }
        Self(cache.build())
    }

    /// Returns the entry of `key`; without one, waits for `compute`, and adds its value. Of several
    /// callers with one key, one computes and the others wait; if it is cancelled, another takes
    /// over.
    pub(super) async fn get_or_compute(
        &self,
        key: K,
        compute: impl Future<Output = Result<Arc<V>>>,
    ) -> Result<Arc<V>> {
        let entry = self.0.entry(key).or_try_insert_with(compute).await;
        Ok(entry.map_err(Error::of_shared)?.into_value())
    }

    /// Returns the bytes in use.
    pub(super) async fn bytes(&self) -> u64 {
        self.0.run_pending_tasks().await;
        self.0.weighted_size()
    }
}

impl<K, V> Clone for FeatureCache<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> fmt::Debug for FeatureCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeatureCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn cache() -> FeatureCache<u8, usize> {
        FeatureCache::new(1 << 20, Some(Duration::from_secs(60)), |_| 8)
    }

    #[tokio::test]
    async fn concurrent_callers_of_one_key_compute_once() {
        let cache = cache();
        let runs = AtomicUsize::new(0);
        let compute = || async {
            runs.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Arc::new(7))
        };
        let callers = (0..8).map(|_| cache.get_or_compute(1, compute()));
        let values = futures_util::future::join_all(callers).await;
        assert!(
            values
                .iter()
                .all(|value| **value.as_ref().expect("a value") == 7)
        );
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert_eq!(cache.bytes().await, 8);
    }

    #[tokio::test]
    async fn an_error_reaches_the_callers_and_is_not_kept() {
        let cache = cache();
        let fails = || async {
            tokio::task::yield_now().await;
            Err(Error::malformed("broken").with_limit("max", 3, "--max"))
        };
        let (first, second) = tokio::join!(
            cache.get_or_compute(1, fails()),
            cache.get_or_compute(1, fails())
        );
        for error in [first, second].map(|result| result.expect_err("an error")) {
            assert_eq!(error.detail(), "broken");
            assert_eq!(error.limit().map(|limit| limit.value), Some(3));
        }
        let value = cache.get_or_compute(1, async { Ok(Arc::new(5)) }).await;
        assert_eq!(*value.expect("computed again"), 5);
    }

    #[tokio::test]
    async fn if_the_one_that_computes_is_cancelled_another_computes() {
        let cache = cache();
        let never = cache.get_or_compute(1, std::future::pending());
        let value = cache.get_or_compute(1, async { Ok(Arc::new(5)) });
        let mut never = Box::pin(never);
        assert!(futures_util::poll!(never.as_mut()).is_pending());
        let mut value = Box::pin(value);
        assert!(futures_util::poll!(value.as_mut()).is_pending(), "it waits");
        drop(never);
        assert_eq!(*value.await.expect("a value"), 5);
    }
}
