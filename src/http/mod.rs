//! The HTTP edge: routes, bodies, negotiation, problems. One file per operation, its options and
//! answer beside it.

pub mod access;
mod activity;
mod admission;
mod attention;
mod attention_stats;
mod bases;
mod body;
mod classify;
mod embed;
mod embeddings;
#[doc(hidden)]
pub mod fuzz;
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
mod reload;
mod schema;
mod serve;
mod similarity;
mod tls;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    http::{HeaderName, HeaderValue, Method, Request, header},
    middleware,
    response::Response,
};
use tokio::sync::Semaphore;
use tower::util::option_layer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};

use self::access::ApiKeys;
pub use self::{
    serve::{ServeConfig, Stop, serve},
    tls::Certificate,
};
use crate::{
    error::{Error, Kind},
    service::{LiveService, Service},
    telemetry,
};

/// Limits and times of the edge.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Most images of a request.
    pub max_images: usize,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Origins whose pages may use the API from a browser, such as `https://example.org`; `*` for
    /// all.
    pub cors_origins: Vec<String>,
    /// Requests that may be under way together; more are refused at once. `None` for as many as the
    /// engine's plan has work for.
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
            max_header_bytes: 32 << 10,
            cors_origins: Vec::new(),
            max_requests: None,
            request_timeout: Duration::from_secs(60),
            snapshot_idle: Duration::from_secs(60),
        }
    }
}

/// What every handler can reach. Clones are cheap.
#[derive(Debug, Clone)]
pub struct AppState {
    live: Arc<LiveService>,
    config: Arc<HttpConfig>,
    /// Who may ask; everybody if there are none.
    keys: Option<Arc<ApiKeys>>,
    /// Places for requests; made with the first, when it is known how the engine runs.
    places: Arc<OnceLock<Arc<Semaphore>>>,
    stopping: Arc<AtomicBool>,
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
    fn service(&self) -> Service {
        self.live.current()
    }

    /// From now on the server says that it is not ready.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// A handler that takes `State<Service>` has one model from its beginning to its end.
impl FromRef<AppState> for Service {
    fn from_ref(state: &AppState) -> Self {
        state.service()
    }
}

/// All routes.
fn router(state: AppState) -> Router {
    let (router, _) = openapi::routes().split_for_parts();
    let request_id = HeaderName::from_static("x-request-id");
    router
        .merge(page::routes())
        // Bodies have our own limit, which a flag sets; axum's is 2 MB.
        .layer(DefaultBodyLimit::disable())
        .fallback(|request: Request<axum::body::Body>| async move {
            let detail = format!(
                "there is no {}; see /docs and /openapi.json",
                request.uri().path()
            );
            Error::new(Kind::NotFound, detail)
        })
        .method_not_allowed_fallback(|request: Request<axum::body::Body>| async move {
            let detail = format!(
                "{} does not take {}",
                request.uri().path(),
                request.method()
            );
            Error::new(Kind::MethodNotAllowed, detail)
        })
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send>| -> Response {
                telemetry::metrics()
                    .panics
                    .with_label_values(&["handler"])
                    .inc();
                problem::response(&Error::internal("a handler panicked"))
            },
        ))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            observe::time_limit,
        ))
        .layer(middleware::from_fn_with_state(state.clone(), access::check))
        .layer(option_layer(cors(&state.config.cors_origins)))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            observe::observe,
        ))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .layer(middleware::map_request(hear_out::hear_out))
        .layer(middleware::map_request(observe::drop_unfit_request_id))
        .with_state(state)
}

/// What pages of other origins may send, if they are allowed anything.
const ALLOWED_HEADERS: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::ACCEPT,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
];

/// What browsers are told of requests from other sites' pages: nothing, unless origins are allowed.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(ALLOWED_HEADERS)
        .expose_headers(
            ["server-timing", "x-request-id", "retry-after", "location"]
                .map(HeaderName::from_static),
        )
        .max_age(Duration::from_secs(3600));
    Some(layer)
}
