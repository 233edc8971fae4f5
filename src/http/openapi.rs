//! The API's description, apart from the routes' own.

use utoipa::{
    OpenApi,
    openapi::{
        Content, Ref, ResponseBuilder,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
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
pub(crate) struct Description;

/// Adds to the description of the routes what all of them share: the API key and its refusals.
pub(crate) fn complete(mut description: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
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
