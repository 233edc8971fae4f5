//! Places that each API key may hold at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Places in use, by the name of the key. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyPlaces(Arc<Mutex<HashMap<Arc<str>, usize>>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyPlace {
    places: KeyPlaces,
    key: Arc<str>,
}

impl KeyPlaces {
    /// Takes a place of a key; `None` if the key holds `max` of them.
    pub(crate) fn take(&self, key: &Arc<str>, max: usize) -> Option<KeyPlace> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(Arc::clone(key)).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(KeyPlace {
            places: self.clone(),
            key: Arc::clone(key),
        })
    }
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        let mut held = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn each_key_has_its_own_places() {
        let places = KeyPlaces::default();
        let key = Arc::from("a");
        let first = places.take(&key, 2);
        let second = places.take(&key, 2);
        assert!(first.is_some() && second.is_some() && places.take(&key, 2).is_none());
        assert!(places.take(&Arc::from("b"), 2).is_some());
        drop(first);
        assert!(places.take(&key, 2).is_some());
        drop(second);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
