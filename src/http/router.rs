//! All routes, each in the group that states its role, time limit and log level, and the layers
//! around them.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{from_fn, from_fn_with_state, map_request, map_request_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use tower::util::option_layer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};
use utoipa::OpenApi;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use super::{
    AppState, Reason, Rejection,
    api::{
        bases,
        features::{
            anomaly, attention, attention_stats, embed, embeddings, matching, objects, pca,
            segments, similarity,
        },
        gallery::{audit, batch, classify, galleries, item, knn, list, map, snapshot, thumbnail},
        health,
        index::{self, Index},
        models, probes,
    },
    middleware::{
        access, decompress, drain_body,
        observe::{drop_invalid_request_id, observe},
        route_group::{self, RouteGroup, RouteTable},
        time_limit::time_limit,
    },
    openapi, page,
};
use crate::{
    error::{Error, Kind, shortened},
    telemetry,
};

/// Lists the routes of the API.
fn api() -> Routes {
    use RouteGroup as Group;
    Routes::new()
        .add(Group::READ, routes!(embed::create_embedding))
        .add(Group::READ, routes!(embeddings::create_openai_embedding))
        .add(Group::READ, routes!(pca::create_pca_map))
        .add(Group::READ, routes!(attention::create_attention_map))
        .add(Group::READ, routes!(attention_stats::compare_heads))
        .add(Group::READ, routes!(similarity::create_similarity_map))
        .add(Group::READ, routes!(matching::match_images))
        .add(Group::READ, routes!(objects::find_objects))
        .add(Group::READ, routes!(anomaly::list_banks))
        .add(Group::READ, routes!(anomaly::get_bank))
        .add(
            Group::WRITE,
            routes!(
                anomaly::make_bank,
                anomaly::add_to_bank,
                anomaly::delete_bank
            ),
        )
        .add(Group::READ, routes!(anomaly::score::score_image))
        .add(Group::READ.untimed(), routes!(anomaly::get_bank_file))
        .add(Group::READ, routes!(segments::list_segmenters))
        .add(Group::READ, routes!(segments::get_segmenter))
        .add(
            Group::WRITE,
            routes!(segments::train_segmenter, segments::delete_segmenter),
        )
        .add(Group::READ, routes!(segments::segment::segment_image))
        .add(Group::READ, routes!(knn::find_neighbors_of_item))
        .add(Group::READ, routes!(knn::find_neighbors))
        .add(Group::READ, routes!(classify::classify))
        .add(Group::READ, routes!(list::list_items))
        .add(Group::WRITE, routes!(batch::put_items))
        .add(Group::READ, routes!(item::get_item))
        .add(
            Group::WRITE,
            routes!(item::put_item, item::update_item, item::delete_item),
        )
        .add(Group::READ, routes!(thumbnail::get_thumbnail))
        .add(Group::READ, routes!(galleries::list_galleries))
        .add(Group::READ, routes!(galleries::get_gallery))
        .add(
            Group::ADMIN,
            routes!(galleries::rename_gallery, galleries::delete_gallery),
        )
        .add(Group::READ, routes!(audit::get_audit))
        .add(
            Group::WRITE,
            routes!(audit::audit_gallery, audit::delete_audit),
        )
        .add(Group::READ, routes!(map::get_map))
        .add(Group::WRITE, routes!(map::map_gallery, map::delete_map))
        .add(Group::READ.untimed(), routes!(snapshot::get_snapshot))
        .add(Group::ADMIN.untimed(), routes!(snapshot::put_snapshot))
        .add(Group::READ, routes!(bases::list_bases))
        .add(Group::READ, routes!(bases::get_basis))
        .add(Group::WRITE, routes!(bases::fit_basis, bases::add_to_basis))
        .add(Group::WRITE, routes!(bases::delete_basis))
        .add(Group::READ, routes!(probes::list_probes))
        .add(Group::WRITE, routes!(probes::train_probe))
        .add(Group::READ, routes!(probes::get_probe))
        .add(Group::WRITE, routes!(probes::delete_probe))
        .add(Group::READ, routes!(models::list_models))
        .add(Group::READ, routes!(models::get_model))
        .add(
            Group::ADMIN.untimed(),
            routes!(models::loading::unload_model),
        )
        .add_plain(
            Group::READ,
            "/v1/models/{owner}/{name}",
            get(models::get_owned_model),
        )
        .add(Group::ADMIN.untimed(), routes!(models::loading::load_model))
        .add(Group::PUBLIC, routes!(index::list_operations))
        .add(Group::PUBLIC, routes!(index::get_version))
        .add(Group::PUBLIC.quiet(), routes!(health::healthz))
        .add(Group::PUBLIC.quiet(), routes!(health::readyz))
        .add(Group::READ.quiet(), routes!(health::metrics))
}

/// Adds the pages to `routes`. The page of the API asks for a key only where there are `keys`.
fn with_pages(routes: Routes, keys: bool) -> Routes {
    let document = match keys {
        true => description(),
        false => openapi::without_keys(description()),
    };
    routes
        .add_plain(RouteGroup::PUBLIC, "/", page::playground())
        .add_plain(RouteGroup::PUBLIC, "/gallery", page::gallery())
        .add_plain(RouteGroup::PUBLIC, "/audit", page::audit())
        .add_plain(RouteGroup::PUBLIC, "/map", page::map())
        .add_plain(RouteGroup::PUBLIC.quiet(), "/assets/{file}", page::asset())
        .merge(
            RouteGroup::PUBLIC,
            &["/docs", "/openapi.json"],
            page::docs(document),
        )
}

/// Returns the OpenAPI document.
pub fn description() -> utoipa::openapi::OpenApi {
    openapi::complete(api().router.into_openapi())
}

/// Routes with their groups.
struct Routes {
    router: OpenApiRouter<AppState>,
    table: RouteTable,
}

impl Routes {
    fn new() -> Self {
        Self {
            router: OpenApiRouter::with_openapi(openapi::Description::openapi()),
            table: RouteTable::default(),
        }
    }

    /// Registers the operations of a `routes!`.
    fn add(mut self, group: RouteGroup, mut routes: UtoipaMethodRouter<AppState>) -> Self {
        for (path, item) in &mut routes.1.paths {
            for (method, _) in openapi::operations(item) {
                self.table.insert(path, method, group);
            }
        }
        self.router = self.router.routes(routes);
        self
    }

    /// Registers a GET route that the OpenAPI document does not list.
    fn add_plain(mut self, group: RouteGroup, path: &str, route: MethodRouter<AppState>) -> Self {
        self.table.insert(path, Method::GET, group);
        self.router = self.router.route(path, route);
        self
    }

    /// Registers all routes of a finished router, whose paths begin with one of `prefixes`.
    fn merge(
        mut self,
        group: RouteGroup,
        prefixes: &[&'static str],
        router: Router<AppState>,
    ) -> Self {
        for prefix in prefixes {
            self.table.insert_prefix(prefix, group);
        }
        self.router = self.router.merge(router.into());
        self
    }
}

/// Builds the router: all routes, and the layers that each request passes. The last layer here is
/// the first that a request meets.
pub(crate) fn router(state: AppState) -> Router {
    let Routes { router, table } = with_pages(api(), state.keys.is_some());
    let request_id = HeaderName::from_static("x-request-id");
    let index = Arc::new(Index::of(&description()));
    Router::from(router)
        .layer(Extension(index))
        // A flag sets our own body limit; axum's is 2 MB.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(decompress::decompress))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(from_fn_with_state(state.clone(), time_limit))
        .layer(from_fn_with_state(state.clone(), access::check))
        .layer(option_layer(cors(&state.config.cors_origins)))
        .layer(from_fn_with_state(state.clone(), observe))
        .layer(map_request_with_state(Arc::new(table), route_group::attach))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .layer(map_request(drain_body::drain))
        .layer(map_request(drop_invalid_request_id))
        .layer(map_response(no_sniff))
        .with_state(state)
}

/// Keeps browsers from guessing another type than the stated one, such as HTML in a text.
async fn no_sniff(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

async fn not_found(request: Request) -> Rejection {
    let path = shortened(request.uri().path());
    let detail = format!("unknown path {path}; see /docs and /openapi.json");
    Error::new(Kind::NotFound, detail).into()
}

async fn method_not_allowed(request: Request) -> Rejection {
    let path = shortened(request.uri().path());
    let method = shortened(request.method().as_str());
    let detail = format!("{path} does not take {method}");
    Rejection::new(Reason::MethodNotAllowed, detail)
}

fn answer_panic(_: Box<dyn std::any::Any + Send>) -> Response {
    telemetry::metrics().count_panic("handler");
    Rejection::from(Error::internal("a handler panicked")).into_response()
}

/// Request headers that pages of allowed origins may set.
const ALLOWED_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::ACCEPT,
    header::IF_NONE_MATCH,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
];

/// Response headers that pages of allowed origins may read.
const EXPOSED_HEADERS: [HeaderName; 6] = [
    HeaderName::from_static("image-size"),
    HeaderName::from_static("server-timing"),
    HeaderName::from_static("x-image-hint"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("retry-after"),
    HeaderName::from_static("location"),
];

/// Returns the CORS layer for the allowed origins, or `None` if there are none.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let values = origins.iter().map(|origin| HeaderValue::from_str(origin));
        AllowOrigin::list(values.filter_map(Result::ok))
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(ALLOWED_HEADERS)
        .expose_headers(EXPOSED_HEADERS)
        .max_age(Duration::from_secs(3600));
    Some(layer)
}
