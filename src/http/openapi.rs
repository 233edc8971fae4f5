//! The list of routes, and the API's description made from it.

use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AppState, attention, bases, embed, health, models, pca};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "dinoserve",
        description = "DINOv2 image features over HTTP: embeddings, PCA maps and attention maps.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "features", description = "What the model sees in images."),
        (name = "server", description = "The server itself."),
    )
)]
struct Description;

/// Every route with its description.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(embed::create_embedding))
        .routes(routes!(pca::create_pca_map))
        .routes(routes!(attention::create_attention_map))
        .routes(routes!(bases::list_bases))
        .routes(routes!(bases::get_basis, bases::fit_basis, bases::add_to_basis, bases::delete_basis))
        .routes(routes!(models::list_models))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .route("/openapi.json", axum::routing::get(async || axum::Json(description())))
}

/// The API's description.
pub fn description() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}
