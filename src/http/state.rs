//! What handlers share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use axum::extract::FromRef;
use tokio::sync::Semaphore;

use super::{HttpConfig, key_permits::KeyPermits, middleware::access::ApiKeys};
use crate::service::Service;

/// State that every handler can reach. Clones are cheap.
#[derive(Debug, Clone)]
pub struct AppState {
    pub(crate) service: Service,
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
    /// Returns the state of a server that answers from `service`, to those who have one of the
    /// `keys` if there are any.
    pub fn new(service: Service, config: HttpConfig, keys: Option<Arc<ApiKeys>>) -> Self {
        Self {
            service,
            config: Arc::new(config),
            keys,
            permits: Arc::default(),
            snapshots: KeyPermits::default(),
            stopping: Arc::default(),
        }
    }

    /// Makes `/readyz` fail from now on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

impl FromRef<AppState> for Service {
    fn from_ref(state: &AppState) -> Self {
        state.service.clone()
    }
}
