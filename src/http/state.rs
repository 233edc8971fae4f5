//! What handlers share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use axum::extract::FromRef;
use tokio::sync::Semaphore;

use super::{HttpConfig, middleware::access::ApiKeys};
use crate::service::{LiveService, Service};

/// What every handler can reach. Clones are cheap.
#[derive(Debug, Clone)]
pub struct AppState {
    pub(crate) live: Arc<LiveService>,
    pub(crate) config: Arc<HttpConfig>,
    /// Who may ask; everybody if there are none.
    pub(crate) keys: Option<Arc<ApiKeys>>,
    /// Places for requests; made with the first, when it is known how the engine runs.
    pub(crate) places: Arc<OnceLock<Arc<Semaphore>>>,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl AppState {
    /// The state of a server that answers from `live`, to those who have one of the `keys` if there
    /// are any.
    pub fn new(live: Arc<LiveService>, config: HttpConfig, keys: Option<Arc<ApiKeys>>) -> Self {
        Self {
            live,
            config: Arc::new(config),
            keys,
            places: Arc::default(),
            stopping: Arc::default(),
        }
    }

    /// The service as it is now.
    pub(crate) fn service(&self) -> Service {
        self.live.current()
    }

    /// From now on the server says that it is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// A handler that takes `State<Service>` has one model from its beginning to its end.
impl FromRef<AppState> for Service {
    fn from_ref(state: &AppState) -> Self {
        state.service()
    }
}
