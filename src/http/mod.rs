//! The HTTP edge: routes, bodies, negotiation, problems. One file per operation, its options and answer beside it.

mod admission;
mod attention;
mod attention_stats;
mod bases;
mod body;
mod classify;
mod embed;
mod embeddings;
mod gallery;
mod health;
mod hear_out;
mod json;
mod knn;
mod maps;
mod models;
mod negotiate;
mod observe;
pub mod openapi;
mod options;
mod page;
mod pca;
mod probes;
mod problem;
mod schema;
mod serve;
mod similarity;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, extract::DefaultBodyLimit, http::Request, middleware, response::Response};
use tokio::sync::Semaphore;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};

pub use self::serve::{ConnectionTimes, serve};
use crate::{
    error::{Error, Kind},
    service::Service,
};

/// Limits and times of the edge.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Most images of a request.
    pub max_images: usize,
    /// Requests that may be under way together; more are refused at once. `None` for as many as the engine's plan has
    /// work for.
    pub max_requests: Option<usize>,
    /// Time in which a request must have been answered, its sending included.
    pub request_timeout: Duration,
    /// Time that a snapshot of a gallery may stand still on its way in or out.
    pub snapshot_idle: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_images: 64,
            max_requests: None,
            request_timeout: Duration::from_secs(60),
            snapshot_idle: Duration::from_secs(60),
        }
    }
}

/// What every handler can reach. Clones are cheap.
#[derive(Debug, Clone)]
pub struct AppState {
    service: Service,
    config: Arc<HttpConfig>,
    /// Places for requests; made with the first, when it is known how the engine runs.
    places: Arc<OnceLock<Arc<Semaphore>>>,
}

impl AppState {
    /// The state of a server that answers from `service`.
    pub fn new(service: Service, config: HttpConfig) -> Self {
        Self { service, config: Arc::new(config), places: Arc::default() }
    }
}

/// All routes.
pub fn router(state: AppState) -> Router {
    let (router, _) = openapi::routes().split_for_parts();
    let request_id = axum::http::HeaderName::from_static("x-request-id");
    router
        .merge(page::routes())
        // Bodies have our own limit, which a flag sets; axum's is 2 MB.
        .layer(DefaultBodyLimit::disable())
        .fallback(|request: Request<axum::body::Body>| async move {
            let detail = format!("there is no {}; see /docs and /openapi.json", request.uri().path());
            Error::new(Kind::NotFound, detail)
        })
        .method_not_allowed_fallback(|request: Request<axum::body::Body>| async move {
            let detail = format!("{} does not take {}", request.uri().path(), request.method());
            Error::new(Kind::MethodNotAllowed, detail)
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| -> Response {
            problem::response(&Error::internal("a handler panicked"))
        }))
        .layer(middleware::from_fn_with_state(state.clone(), observe::time_limit))
        .layer(middleware::from_fn(observe::observe))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id.clone(), MakeRequestUuid))
        .layer(middleware::map_request(hear_out::hear_out))
        .layer(middleware::map_request(observe::drop_unfit_request_id))
        .with_state(state)
}
