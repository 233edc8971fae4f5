//! The list of routes, and the API's description made from it.

use utoipa::{
    OpenApi,
    openapi::{
        Content, Ref, ResponseBuilder,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState, attention, attention_stats, bases, classify, embed, embeddings,
    gallery::{batch, galleries, item, list, snapshot, thumbnail},
    health, knn, models, pca, probes, similarity,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "dinoserve",
        description = "DINOv2 image features over HTTP: embeddings, PCA maps, attention maps, and neighbors in stored galleries.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "features", description = "What the model sees in images."),
        (name = "gallery", description = "What is stored, and what is like it."),
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

/// The API's description.
pub fn description() -> utoipa::openapi::OpenApi {
    let mut description = routes().into_openapi();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let scheme = scheme.description(Some(
        "An API key, where the server was started with --api-keys.",
    ));
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(scheme.build()));
    // Without a key, too: most servers want none.
    description.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new("key", [""; 0]),
    ]);
    let refusals = [
        ("401", "There is no API key, or one that is not known."),
        (
            "403",
            "The API key may not do this, or a page of another site asked for it.",
        ),
        (
            "429",
            "The API key has used up its requests; `Retry-After` tells for how long.",
        ),
        ("431", "The request's head is too large."),
    ];
    for (path, item) in &mut description.paths.paths {
        // Open to everybody.
        if matches!(path.as_str(), "/healthz" | "/readyz") {
            continue;
        }
        for operation in [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ]
        .into_iter()
        .flatten()
        {
            for (status, what) in refusals {
                let content = Content::new(Some(Ref::from_schema_name("Problem")));
                let response = ResponseBuilder::new()
                    .description(what)
                    .content("application/problem+json", content);
                operation
                    .responses
                    .responses
                    .entry(status.to_owned())
                    .or_insert_with(|| response.build().into());
            }
        }
    }
    description
}
