//! `/v1/gallery`, `/v1/galleries`: what is stored. One file per group of operations.

pub(crate) mod batch;
pub(crate) mod classify;
pub(crate) mod galleries;
pub(crate) mod item;
pub(crate) mod knn;
pub(crate) mod list;
pub(crate) mod schema;
pub(crate) mod snapshot;
pub(crate) mod thumbnail;

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    error::{Error, Kind, Result},
    gallery::{GalleryName, Item, ItemFilter, ItemId, Label, Metadata, Neighbor},
    http::{
        AppState,
        request::{json::check_length_of_object, options::Options},
    },
};

/// Which gallery is meant.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct GalleryOption {
    pub(crate) gallery: GalleryName,
}

/// Which items are meant.
#[derive(Deserialize, Default)]
#[serde(default)]
struct FilterOptions {
    label: Option<String>,
    /// Not called `filter`, as that is the resampling filter wherever an image is taken.
    #[serde(rename = "where")]
    filter: Option<Value>,
}

/// Takes the filter.
pub(crate) fn take_filter(options: &mut Options) -> Result<Option<ItemFilter>> {
    let FilterOptions { label, filter } = options.take()?;
    let filter = filter
        .map(|filter| ItemFilter::parse(&parsed("where", filter)?))
        .transpose()?;
    let Some(label) = label else {
        return Ok(filter);
    };
    let of_label = ItemFilter::of_label(Label::new(label)?.as_str());
    match filter {
        None => Ok(Some(of_label)),
        Some(filter) if filter.label.is_none() => Ok(Some(ItemFilter {
            label: of_label.label,
            ..filter
        })),
        Some(_) => Err(Error::option(
            "label",
            "stands in `where`, too; give it in one of the two",
        )),
    }
}

/// What is known of an item that is to be stored.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ItemOptions {
    label: Option<String>,
    metadata: Option<Value>,
}

/// Takes the label and the metadata.
fn take_facts(options: &mut Options) -> Result<(Option<Label>, Metadata)> {
    let ItemOptions { label, metadata } = options.take()?;
    let label = label.map(Label::new).transpose()?;
    let metadata = metadata.map(|metadata| Metadata::from_value(parsed("metadata", metadata)?));
    Ok((label, metadata.transpose()?.unwrap_or_default()))
}

/// An option that is JSON: as it is, or as the text that it was in a query or form.
fn parsed(name: &str, value: Value) -> Result<Value> {
    let Value::String(text) = value else {
        return Ok(value);
    };
    check_length_of_object(name, &text)?;
    serde_json::from_str(&text).map_err(|error| Error::option(name, format!("no JSON: {error}")))
}

/// The text in the place of `{id}` or `{name}` in a path.
async fn path_text(parts: &mut Parts, state: &AppState) -> Result<String> {
    let malformed = |_| Error::new(Kind::Malformed, "the path is not UTF-8 in percent-encoding");
    let Path(text) = Path::<String>::from_request_parts(parts, state)
        .await
        .map_err(malformed)?;
    Ok(text)
}

/// The item, gallery, basis or probe that a path names.
pub(crate) struct NamePath<T>(pub(crate) T);

impl<T: FromStr<Err = Error>> FromRequestParts<AppState> for NamePath<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        Ok(Self(path_text(parts, state).await?.parse()?))
    }
}

/// A stored item.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemJson {
    /// Its id.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// Its place in the order of the gallery.
    #[schema(example = 17)]
    place: u64,
    /// What it shows.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// What else is known of it.
    #[schema(value_type = Object, example = json!({"year": 2024}))]
    metadata: Metadata,
    /// When it was last stored, in milliseconds since 1970.
    #[schema(example = 1_790_000_000_000_u64)]
    stored_ms: u64,
}

impl From<Item> for ItemJson {
    fn from(item: Item) -> Self {
        let Item {
            id,
            place,
            label,
            metadata,
            stored_ms,
        } = item;
        Self {
            id,
            place,
            label,
            metadata,
            stored_ms,
        }
    }
}

/// A stored item and how near it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct NeighborJson {
    /// Its id.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// Cosine of the angle between the vectors: -1 to 1, 1 for the same direction.
    #[schema(example = 0.93)]
    score: f32,
    /// What it shows.
    #[schema(value_type = Option<String>, example = "cat")]
    label: Option<Label>,
    /// What else is known of it.
    #[schema(value_type = Object, example = json!({"year": 2024}))]
    metadata: Metadata,
    /// Its place in the order of the gallery.
    #[schema(example = 17)]
    place: u64,
}

impl NeighborJson {
    /// The neighbors in their order.
    pub(crate) fn list(neighbors: Vec<Neighbor>) -> Vec<Self> {
        let json = |Neighbor {
                        item:
                            Item {
                                id,
                                place,
                                label,
                                metadata,
                                ..
                            },
                        score,
                    }| Self {
            id,
            score,
            label,
            metadata,
            place,
        };
        neighbors.into_iter().map(json).collect()
    }
}
