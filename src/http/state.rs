//! What handlers share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use axum::extract::FromRef;
use tokio::sync::Semaphore;

use super::{HttpConfig, key_permits::KeyPermits, middleware::access::ApiKeys};
use crate::service::{LiveService, Service};

/// State that every handler can reach. Clones are cheap.
#[derive(Debug, Clone)]
pub struct AppState {
    pub(crate) live: Arc<LiveService>,
    pub(crate) config: Arc<HttpConfig>,
    /// Known API keys; `None` lets everyone in.
    pub(crate) keys: Option<Arc<ApiKeys>>,
    /// Admission permits, created at the first request, when the engine's plan is known.
    pub(crate) permits: Arc<OnceLock<Arc<Semaphore>>>,
    /// Places of snapshots that are being sent.
    pub(crate) snapshots: KeyPermits,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl AppState {
    /// Returns the state of a server that answers from `live`, to those who have one of the `keys`
    /// if there are any.
    pub fn new(live: Arc<LiveService>, config: HttpConfig, keys: Option<Arc<ApiKeys>>) -> Self {
        Self {
            live,
            config: Arc::new(config),
            keys,
            permits: Arc::default(),
            snapshots: KeyPermits::default(),
            stopping: Arc::default(),
        }
    }

    /// Returns the current service.
    pub(crate) fn service(&self) -> Service {
        self.live.current()
    }

    /// Makes `/readyz` fail from now on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Gives a handler that takes `State<Service>` one model from its beginning to its end.
impl FromRef<AppState> for Service {
    fn from_ref(state: &AppState) -> Self {
        state.service()
    }
}
