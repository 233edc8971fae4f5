//! The OpenAPI document, apart from what each operation says of itself.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::Value;
use utoipa::{
    IntoResponses, OpenApi,
    openapi::{
        Content, Ref, RefOr, Required, Response, ResponseBuilder,
        path::{Operation, Parameter, ParameterBuilder, PathItem},
        request_body::RequestBody,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::api::schema::{File, ImagesForm, MaskedImagesForm};

/// Start of the document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "dinoserve",
        description = "DINO image features over HTTP: embeddings, PCA maps, attention maps, and \
            nearest neighbors in stored galleries.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(File, ImagesForm, MaskedImagesForm)),
    tags(
        (name = "features", description = "Features that the model extracts from images."),
        (name = "gallery", description = "Stored items, nearest neighbors, and classification."),
        (name = "server", description = "The server itself."),
    )
)]
pub(crate) struct Description;

/// Adds what operations have in common: the API key, its problems, and the forms of an image body.
pub(crate) fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("API key, if the server was started with --api-keys."));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(scheme.build()));
    // The empty requirement: most servers need no key.
    document.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new("key", [""; 0]),
    ]);
    for (path, item) in &mut document.paths.paths {
        // These need no key.
        if matches!(path.as_str(), "/healthz" | "/readyz" | "/version" | "/v1") {
            continue;
        }
        for (_, operation) in operations(item) {
            complete_operation(operation);
        }
    }
    document
}

/// Removes what is about API keys, from the document of a server without.
pub(crate) fn without_keys(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    document.security = None;
    if let Some(components) = &mut document.components {
        components.security_schemes.clear();
    }
    document
}

/// Returns the operations of a path, with their methods.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let operations = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ];
    operations
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Optional parameters whose example is offered, because their operation needs one of several.
const OFFERED: [&str; 1] = ["patch"];

/// Moves the examples of optional parameters into their descriptions. As examples, pages such as
/// `/docs` would send all of them with a first try, and there may be no `basis=flowers`.
fn describe_example(parameter: &mut Parameter) {
    let is_required = matches!(parameter.required, Required::True);
    if is_required || OFFERED.contains(&parameter.name.as_str()) {
        return;
    }
    // The field has no accessor.
    let fields = serde_json::to_value(&*parameter).unwrap_or_default();
    let example = match &fields["example"] {
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut description = parameter.description.take().unwrap_or_default();
    let is_default = fields["schema"]["default"] == fields["example"];
    if !is_default && !description.contains(&example) {
        description = format!("{} For example `{example}`.", description.trim_end());
    }
    *parameter = ParameterBuilder::from(parameter.clone())
        .description(Some(description))
        .example(None)
        .build();
}

fn complete_operation(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            describe_example(parameter);
        }
    }
    for (status, response) in problems(&["401", "403", "429", "431"]) {
        operation
            .responses
            .responses
            .entry(status)
            .or_insert(response);
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for &(kind, schema) in other_forms(body) {
            let content = Content::new(Some(Ref::from_schema_name(schema)));
            body.content.insert(kind.to_owned(), RefOr::T(content));
        }
    }
}

/// Returns the other forms of a body whose JSON form is one of images: content types, and schemas.
fn other_forms(body: &RequestBody) -> &'static [(&'static str, &'static str)] {
    let Some(RefOr::T(json)) = body.content.get("application/json") else {
        return &[];
    };
    let Some(RefOr::Ref(schema)) = &json.schema else {
        return &[];
    };
    match schema.ref_location.rsplit('/').next() {
        Some("ImagesJson" | "ImageOrVectorJson" | "NewItemJson") => &[
            ("image/*", "File"),
            ("application/octet-stream", "File"),
            ("multipart/form-data", "ImagesForm"),
        ],
        Some("MaskedImagesJson") => &[("multipart/form-data", "MaskedImagesForm")],
        _ => &[],
    }
}

macro_rules! problem_sets {
    ($($(#[$doc:meta])* $name:ident: $statuses:expr;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    problems(&$statuses)
                }
            }
        )*
    };
}

problem_sets! {
    /// Problems of operations that neither run the model nor write.
    GalleryProblems: ["404", "422", "4XX", "5XX"];
    /// Problems of operations on images alone.
    FeatureProblems: ["413", "415", "422", "4XX", "503", "5XX"];
    /// Problems of operations that compare images or vectors with a gallery.
    SearchProblems: ["404", "409", "413", "422", "4XX", "503", "5XX"];
    /// Problems of operations that store items. They store nothing then.
    WriteProblems: ["404", "409", "413", "422", "4XX", "503", "507", "5XX"];
}

fn problems(statuses: &[&str]) -> BTreeMap<String, RefOr<Response>> {
    let mut responses = BTreeMap::new();
    for &status in statuses {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new()
            .description(problem(status))
            .content("application/problem+json", content)
            .build();
        responses.insert(status.to_owned(), RefOr::T(response));
    }
    responses
}

fn problem(status: &str) -> &'static str {
    match status {
        "401" => "The API key is missing or unknown.",
        "403" => "The API key lacks the role for this, or the request comes from another website.",
        "404" => {
            "The gallery, item, model, or what is fitted or trained does not exist, or the \
             server has no gallery."
        }
        "409" => {
            "The gallery has features of another model, or from other options, is being restored, \
             or has the new name already. `detail` says which."
        }
        "413" => "The bytes, pixels, images or metadata exceed a limit, which `limit` names.",
        "415" => "The operation does not accept this type or encoding of body.",
        "422" => {
            "An image cannot be decoded, a vector cannot be compared, or an option is invalid or \
             above a limit."
        }
        "429" => "The API key has used up its requests. `Retry-After` is the time to wait.",
        "431" => "The request head is too large.",
        "4XX" => "The request is invalid.",
        "503" => {
            "The server is at its maximum of requests, the model is not ready, or the gallery \
             cannot be reached. Retry later."
        }
        "507" => "The disk is full. Items that were stored before are safe and can be read.",
        _ => "The server failed.",
    }
}
