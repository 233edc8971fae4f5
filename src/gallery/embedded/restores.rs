//! Restores in progress. One process serves a folder, so they are known in memory.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

use crate::gallery::RestoreLock;

/// Galleries that are being restored. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Restores(Arc<Mutex<HashSet<String>>>);

impl Restores {
    /// Locks a target; `None` if it is locked.
    pub(super) fn lock(&self, target: &str) -> Option<RestoreLock> {
        let is_free = self.0.lock().insert(target.to_owned());
        is_free.then(|| {
            RestoreLock::new(Locked {
                restores: self.clone(),
                target: target.to_owned(),
            })
        })
    }
}

struct Locked {
    restores: Restores,
    target: String,
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.restores.0.lock().remove(&self.target);
    }
}
