//! The options, bodies and problems of the gallery's endpoints as the API description shows them.
//!
//! The values are read by the structs beside the handlers and of [`crate::service`]; a test
//! compares the names.

#![allow(dead_code, reason = "these types describe; nothing makes them")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::{
    features::{pool::Pooling, vote::Vote},
    http::{
        api::schema::{EXAMPLE_IMAGE, choice, one_of},
        response::problem::Problem,
    },
    service::ProbeFeatures,
};

/// Which gallery.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GalleryParams {
    /// The gallery: 1 to 64 of `a-z`, `0-9`, `-`, `_`, the first a letter or digit.
    #[param(default = "default", example = "default")]
    gallery: Option<String>,
}

/// What is known of an item.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ItemParams {
    /// What it shows, in up to 256 bytes.
    #[param(example = "cat")]
    label: Option<String>,
    /// What else is known of it: a JSON object of up to 16 KiB. In a JSON body the object itself.
    #[param(example = r#"{"year": 2024}"#)]
    metadata: Option<String>,
}

/// What vectors are.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VectorParams {
    /// How tokens become a vector. By default the gallery's own way; `cls` for the first item of a
    /// gallery.
    #[param(schema_with = one_of::<Pooling>)]
    pooling: Option<String>,
    /// How many last blocks are joined. By default as the gallery's; 1 for the first item of a
    /// gallery.
    #[param(minimum = 1, maximum = 4)]
    layers: Option<usize>,
    /// Fingerprint of the features in `vector`; refused if the gallery's is another.
    fingerprint: Option<String>,
}

/// Options of looking up an item.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VectorParam {
    /// Give the vector, too.
    #[param(default = false)]
    vector: Option<bool>,
}

/// Which page.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Most items of the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Which items.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilterParams {
    /// Only items with this label.
    #[param(example = "cat")]
    label: Option<String>,
    /// Only items that fulfil all conditions of `{"label": C, "metadata": {"member": C, …}}`, as
    /// JSON. A condition is a value to be equal to; `{"any": [..]}`; or a range of `gt`, `gte`,
    /// `lt`, `lte`. In a JSON body the object itself.
    #[param(
        rename = "where",
        example = r#"{"metadata": {"year": {"gte": 2020}, "place": {"any": ["Bern", "Basel"]}}}"#
    )]
    filter: Option<String>,
}

/// Which item's neighbors.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KnnOfItemParams {
    /// The item.
    #[param(example = "cats/chelsea.jpg")]
    id: String,
    /// Find the item itself, too.
    #[param(default = false)]
    include_self: Option<bool>,
}

/// How neighbors are sought.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchParams {
    /// How many neighbors.
    #[param(minimum = 1, maximum = 1000, default = 20)]
    k: Option<usize>,
    /// Compare with every item, without the approximate index.
    #[param(default = false)]
    exact: Option<bool>,
}

/// How neighbors vote.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VoteParams {
    /// `weighted`: each neighbor with exp(score / temperature). `majority`: all alike.
    #[param(schema_with = choice::<Vote>)]
    vote: Option<String>,
    /// How much nearer neighbors weigh more: the lower, the more.
    #[param(exclusive_minimum = 0.0, default = 0.07)]
    temperature: Option<f32>,
    /// Neighbors with a lower score have no vote; without any the label is null.
    #[param(minimum = -1.0, maximum = 1.0)]
    min_score: Option<f32>,
}

/// A probe in the place of neighbors.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProbeParam {
    /// Classify by this probe, and not by neighbors. Of the other options only those of images and
    /// `min_score` go with it: a probability below `min_score` makes the label null. In place of an
    /// image it takes the features it was trained on as `vector`: those of
    /// `/v1/embed?normalize=false` with `pooling=cls_mean`, or `cls`.
    #[param(example = "birds")]
    probe: Option<String>,
}

/// Options of training a probe that may stand in the query, too.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProbeParams {
    /// Name of the probe: 1 to 64 of `a-z`, `0-9`, `-`, `_`, the first a letter or digit.
    #[param(example = "birds")]
    name: Option<String>,
    /// The gallery that it learns from.
    #[param(default = "default", example = "default")]
    gallery: Option<String>,
    /// What it takes: CLS and the mean of the patch tokens, or CLS alone.
    #[param(schema_with = choice::<ProbeFeatures>)]
    features: Option<String>,
    /// Strength of the penalty on the weights: the objective is that of scikit-learn's
    /// `LogisticRegression` with `C = 1/l2`. By default the one of 100000, 10000, … 0.01 that does
    /// best in cross-validation.
    #[param(minimum = 0.000001, maximum = 1_000_000_000.0, example = 100.0)]
    l2: Option<f64>,
    /// Parts of the cross-validation; fewer if a class has fewer items.
    #[param(minimum = 2, maximum = 20, default = 5)]
    folds: Option<usize>,
    /// Answer when the training has ended, if that is before the time of a request is over.
    #[param(default = false)]
    wait: Option<bool>,
}

/// What is to be trained. The options may stand in the query as well.
#[derive(serde::Serialize, ToSchema)]
#[schema(example = json!({"name": "birds", "gallery": "default", "features": "cls_mean"}))]
pub(crate) struct ProbePlanJson {
    /// Name of the probe.
    name: String,
    /// Any of the other options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// An image or a vector in JSON, with any of the endpoint's options beside it.
#[derive(serde::Serialize, ToSchema)]
#[schema(example = json!({"image": EXAMPLE_IMAGE, "label": "cat", "metadata": {"year": 2024}}))]
pub(crate) struct ImageOrVectorJson {
    /// One image file in base64, or as a `data:` URI.
    image: Option<String>,
    /// Several, where several can be answered.
    images: Option<Vec<String>>,
    /// A vector in place of images: as many finite numbers as the gallery's vectors have, of any
    /// length but 0.
    vector: Option<Vec<f32>>,
    /// Any of the endpoint's options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// Several items in JSON, with any of the endpoint's options beside them.
#[derive(serde::Serialize, ToSchema)]
#[schema(example = json!({"items": [{"id": "chelsea", "image": EXAMPLE_IMAGE, "label": "cat"}], "gallery": "default"}))]
pub(crate) struct BatchJson {
    /// The items.
    items: Vec<BatchItemJson>,
    /// Any of the endpoint's options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// An item: an image or a vector, and what is known of it.
#[derive(serde::Serialize, ToSchema)]
pub(crate) struct BatchItemJson {
    /// Up to 512 bytes of UTF-8.
    id: String,
    /// An image file in base64, or as a `data:` URI.
    image: Option<String>,
    /// A vector in its place.
    vector: Option<Vec<f32>>,
    /// What it shows.
    label: Option<String>,
    /// What else is known of it.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Several items as form parts, with any of the endpoint's options as text parts.
#[derive(ToSchema)]
pub(crate) struct BatchForm {
    /// The image files. The name of a file is its id, unless `items` says another.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<String>,
    /// A JSON list with an object of `id`, `label`, `metadata` for each file, in their order.
    #[schema(example = r#"[{"id": "chelsea", "label": "cat"}]"#)]
    items: Option<String>,
}

/// What can go wrong where nothing is written and no model runs.
#[derive(IntoResponses)]
pub(crate) enum GalleryProblems {
    /// There is no such gallery or item, or this server keeps none.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// An option is not as it should be, or above a limit, which is named.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(Problem),
    /// The request is at fault.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Other(Problem),
    /// The server is; 503 if the gallery cannot be reached.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Server(Problem),
}

/// What can go wrong where an image or a vector is compared.
#[derive(IntoResponses)]
pub(crate) enum SearchProblems {
    /// There is no such gallery, or this server keeps none.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// The gallery holds vectors of another model, or made in another way: what it wants is named.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// More bytes, pixels or images than a limit, which is named.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The image cannot be decoded, the vector not be compared, or an option is not as it should
    /// be.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(Problem),
    /// The request is at fault.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Other(Problem),
    /// Every place is taken, or the gallery cannot be reached; try again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// The server is at fault.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Server(Problem),
}

/// What can go wrong where something is stored. Nothing is stored then.
#[derive(IntoResponses)]
pub(crate) enum WriteProblems {
    /// This server keeps no gallery.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// The gallery holds vectors of another model, or made in another way: what it wants is named.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// More bytes, pixels, images or metadata than a limit.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The image cannot be decoded, the vector not be compared, or an option is not as it should
    /// be.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(Problem),
    /// The request is at fault.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Other(Problem),
    /// Every place is taken, or the gallery cannot be reached; try again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// The disk is full. What was stored before is safe and can be read.
    #[response(status = 507, content_type = "application/problem+json")]
    StorageFull(Problem),
    /// The server is at fault.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Server(Problem),
}
