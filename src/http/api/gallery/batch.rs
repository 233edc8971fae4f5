//! `POST /v1/gallery`.

use std::collections::{BTreeMap, HashMap};

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::WriteStatus,
    params::{
        ConflictParams, FeaturesParam, GalleryParams, ItemParams, VectorParams, take_input_options,
    },
};
use crate::{
    error::Error,
    gallery::{GalleryName, ItemId, Written},
    http::{
        Result,
        api::schema::{EXAMPLE_IMAGE, IdSource, ImageParams},
        openapi::WriteProblems,
        request::{body::BatchRequest, contents::BatchEntry, model::ModelParams},
        response::{answer::json, problem::Problem},
    },
    service::{Answers, Extractor, NewEntry, OnConflict, Service},
};

/// Several items in JSON, along with any of the operation's options.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "items": [{"id": "chelsea", "image": EXAMPLE_IMAGE, "label": "cat"}],
    "gallery": "default",
}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct BatchJson {
    /// The items.
    items: Vec<BatchItemJson>,
    /// Any of the operation's options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// An image or a vector, with its id, label and metadata.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct BatchItemJson {
    /// Id of the item: up to 512 bytes of UTF-8. It may be left out with `id=sha256`.
    id: Option<String>,
    /// An image file, in base64 or as a `data:` URI.
    image: Option<String>,
    /// A vector instead of an image.
    vector: Option<Vec<f32>>,
    /// Features of a vector for probes: CLS and the mean of the patch tokens of its image, one
    /// after the other.
    features: Option<Vec<f32>>,
    /// Label of the item.
    label: Option<String>,
    /// Metadata of the item.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Several items as the files of a form. Text parts are options of the operation.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct BatchForm {
    /// The image files. The name of a file is its id, unless `items` or the option `id` says
    /// otherwise.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<String>,
    /// JSON list with an object of `id`, `label` and `metadata` for each file, in their order.
    #[schema(example = r#"[{"id": "chelsea", "label": "cat"}]"#)]
    items: Option<String>,
}

/// Outcome of a batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// Name of the gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    /// Width of its vectors.
    #[schema(example = 384)]
    dim: usize,
    /// One entry per item, in the order of the request.
    data: Vec<BatchOutcome>,
}

/// Outcome of an item.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchOutcome {
    /// Index of the item in the request.
    index: usize,
    /// Id of the item, if it could be read.
    #[schema(example = "cats/chelsea.jpg")]
    id: Option<String>,
    /// What was done.
    status: WriteStatus,
    /// Problem with a failed item.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// Ids of the items of a batch.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct IdSourceParams {
    /// Id of an image whose item states none. `name`: the name of the file. `sha256`: the SHA-256
    /// of the file in 64 hexadecimal digits, so that different photographs with one name stay
    /// apart, and equal files become one item.
    #[param(inline)]
    id: IdSource,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IdParam {
    id: Option<String>,
}

/// Store several items.
///
/// Each item is an image or a vector with its id, `label` and `metadata`. All valid items are
/// stored in one transaction; each of the others gets an `error`. The id of a file in a form is its
/// name, or its SHA-256 with `id=sha256`. A form part `items` can state more: a JSON list with an
/// object for each file, in their order. Items of a request with the same id are rejected, unless
/// `on_conflict` is `skip` or `error`: the first one counts then.
#[utoipa::path(
    post,
    path = "/v1/gallery",
    tag = "gallery",
    params(
        GalleryParams, ModelParams, IdSourceParams, ConflictParams, ImageParams, VectorParams,
    ),
    request_body(content((BatchForm = "multipart/form-data"), (BatchJson = "application/json"))),
    responses(
        (status = 200, description = "The outcome of each item.", body = BatchAnswer),
        WriteProblems,
    )
)]
pub(crate) async fn put_items(
    State(service): State<Service>,
    mut request: BatchRequest,
) -> Result<Response> {
    let GalleryParams { gallery } = request.options.take()?;
    let model = request.options.choose_model(&service)?;
    let IdSourceParams { id: id_source } = request.options.take()?;
    let ConflictParams { on_conflict } = request.options.take()?;
    let on_conflict = on_conflict.unwrap_or_default();
    let input_options = take_input_options(&mut request.options)?;
    request.options.reject_unknown()?;

    let items = with_ids(&model.of_new(), request.contents.0, id_source).await?;
    if on_conflict == OnConflict::Replace {
        check_distinct(&items)?;
    }
    let mut entries = Vec::new();
    let mut checked = Vec::with_capacity(items.len());
    for item in items {
        let id = item.id.clone();
        checked.push((id, new_entry(item).map(|entry| entries.push(entry))));
    }
    let stored = service
        .galleries()?
        .insert(&model, &gallery, entries, &input_options, on_conflict)
        .await?;
    let Answers { binding, outcomes } = stored.value;
    let body = BatchAnswer {
        gallery,
        dim: binding.dim,
        data: join_outcomes(checked, outcomes),
    };
    json(&body, &stored.stages)
}

/// Gives an id to each image that states none.
async fn with_ids(
    extractor: &Extractor,
    mut items: Vec<BatchEntry>,
    source: IdSource,
) -> Result<Vec<BatchEntry>> {
    if source == IdSource::Name {
        items.iter_mut().for_each(BatchEntry::take_file_name);
        return Ok(items);
    }
    let hash = move || {
        items.iter_mut().for_each(BatchEntry::hash_file);
        Ok(items)
    };
    Ok(extractor.on_blocking_thread("hashing files", hash).await?)
}

/// Joins the items, each with its id and whether it was valid, with the outcomes of the valid ones.
fn join_outcomes(
    items: Vec<(Option<String>, Result<(), Error>)>,
    outcomes: Vec<Result<Written, Error>>,
) -> Vec<BatchOutcome> {
    let mut outcomes = outcomes.into_iter();
    let mut data = Vec::with_capacity(items.len());
    for (index, (id, valid)) in items.into_iter().enumerate() {
        let missing = || Err(Error::internal("an item has no outcome"));
        let outcome = valid.and_then(|()| outcomes.next().unwrap_or_else(missing));
        let (status, error) = match outcome {
            Ok(written) => (WriteStatus::from(written), None),
            Err(error) => (WriteStatus::Failed, Some(Problem::new(error))),
        };
        // The name of a file can be longer than an id.
        let id = id.filter(|id| id.len() <= ItemId::MAX_BYTES);
        data.push(BatchOutcome {
            index,
            id,
            status,
            error,
        });
    }
    data
}

/// Rejects two items with the same id, since the order in which they are stored is undefined.
fn check_distinct(items: &[BatchEntry]) -> Result<(), Error> {
    let mut seen = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(id) = &item.id
            && let Some(first) = seen.insert(id.as_str(), index)
        {
            let detail = format!("{id:?} is the id of items {first} and {index}; use it only once");
            return Err(Error::option("id", detail));
        }
    }
    Ok(())
}

fn new_entry(item: BatchEntry) -> Result<NewEntry, Error> {
    let (input, mut options) = item.content?;
    let IdParam { id } = options.take()?;
    let detail = "missing; give every item an id, or every file a name, or set id=sha256 to make \
        the ids of images from their content";
    let id = id.or(item.id);
    let id = id.ok_or_else(|| Error::option("id", detail))?;
    let id = ItemId::new(id)?.of_new_item()?;
    let (label, metadata) = options.take::<ItemParams>()?.check()?;
    let FeaturesParam { features } = options.take()?;
    options.reject_unknown()?;
    Ok(NewEntry {
        id,
        label,
        metadata,
        input,
        features,
    })
}
