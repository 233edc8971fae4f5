//! All routes and the layers around them.

use std::time::Duration;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, Request, header},
    middleware,
    response::Response,
};
use tower::util::option_layer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    api::{
        bases,
        features::{attention, attention_stats, embed, embeddings, pca, similarity},
        gallery::{batch, classify, galleries, item, knn, list, snapshot, thumbnail},
        health, models, probes,
    },
    middleware::{access, drain_body, observe},
    openapi, page,
    response::problem,
};
use crate::{
    error::{Error, Kind},
    telemetry,
};

/// All routes.
pub(crate) fn router(state: AppState) -> Router {
    let (router, _) = routes().split_for_parts();
    let request_id = HeaderName::from_static("x-request-id");
    router
        .merge(page::routes(description()))
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
        .layer(middleware::map_request(drain_body::hear_out))
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

/// Returns the API's description.
pub fn description() -> utoipa::openapi::OpenApi {
    openapi::complete(routes().into_openapi())
}

/// Every route with its description.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(embed::create_embedding))
        .routes(routes!(pca::create_pca_map))
        .routes(routes!(attention::create_attention_map))
        .routes(routes!(attention_stats::compare_heads))
        .routes(routes!(similarity::create_similarity_map))
        .routes(routes!(embeddings::create_openai_embedding))
        .routes(routes!(knn::find_neighbors_of_item, knn::find_neighbors))
        .routes(routes!(classify::classify))
        .routes(routes!(list::list_items, batch::put_items))
        .routes(routes!(item::put_item, item::get_item, item::delete_item))
        .routes(routes!(thumbnail::get_thumbnail))
        .routes(routes!(galleries::list_galleries))
        .routes(routes!(galleries::get_gallery, galleries::delete_gallery))
        .routes(routes!(snapshot::get_snapshot, snapshot::put_snapshot))
        .routes(routes!(bases::list_bases))
        .routes(routes!(
            bases::get_basis,
            bases::fit_basis,
            bases::add_to_basis,
            bases::delete_basis
        ))
        .routes(routes!(probes::list_probes, probes::train_probe))
        .routes(routes!(probes::get_probe, probes::delete_probe))
        .routes(routes!(models::list_models))
        .routes(routes!(models::load_model))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}
