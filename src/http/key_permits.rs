//! Permits that each API key may hold at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Permits in use, by the name of the key. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyPermits(Arc<Mutex<HashMap<Arc<str>, usize>>>);

/// A permit, until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyPermit {
    permits: KeyPermits,
    key: Arc<str>,
}

impl KeyPermits {
    /// Takes a permit of a key; `None` if the key holds `max` of them.
    pub(crate) fn take(&self, key: &Arc<str>, max: usize) -> Option<KeyPermit> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(Arc::clone(key)).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(KeyPermit {
            permits: self.clone(),
            key: Arc::clone(key),
        })
    }
}

impl Drop for KeyPermit {
    fn drop(&mut self) {
        let mut held = self
            .permits
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_permits() {
        let permits = KeyPermits::default();
        let key = Arc::from("a");
        let first = permits.take(&key, 2);
        let second = permits.take(&key, 2);
        assert!(first.is_some() && second.is_some() && permits.take(&key, 2).is_none());
        assert!(permits.take(&Arc::from("b"), 2).is_some());
        drop(first);
        assert!(permits.take(&key, 2).is_some());
        drop(second);
        assert!(permits.0.lock().unwrap().is_empty());
    }
}
