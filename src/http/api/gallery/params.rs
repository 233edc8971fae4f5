//! Options and bodies that several operations on galleries share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::{Error, Result},
    features::pool::Pooling,
    gallery::{GalleryName, ItemFilter, Label, Metadata},
    http::{
        api::schema::{EXAMPLE_IMAGE, ImageParams, OneOf},
        request::options::{Options, parsed_object},
    },
    service::{InputOptions, NeighborQuery, OnConflict, SearchOptions, VectorOptions},
};

/// Takes the options of a search for neighbors.
pub(crate) fn take_query(options: &mut Options) -> Result<NeighborQuery> {
    let SearchParams { k, exact } = options.take()?;
    let filter = options.take::<FilterParams>()?.filter()?;
    let GalleryParams { gallery } = options.take()?;
    Ok(NeighborQuery {
        gallery,
        search: SearchOptions { k, exact },
        filter,
    })
}

/// Takes the options of images and vectors.
pub(crate) fn take_input_options(options: &mut Options) -> Result<InputOptions> {
    let image = options.take::<ImageParams>()?.into();
    let vectors: VectorParams = options.take()?;
    Ok(InputOptions {
        image,
        vectors: VectorOptions {
            pooling: vectors.pooling,
            layers: vectors.layers,
            fingerprint: vectors.fingerprint,
        },
    })
}

/// Schema of `pooling`, whose default depends on the gallery.
type AnyPooling = OneOf<Pooling>;

/// Id of an item in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct IdPath {
    /// Id of the item: up to 512 bytes, percent-encoded (`/` is `%2F`). A new item may not have the
    /// id `.` or `..`.
    #[param(example = "cats%2Fchelsea.jpg")]
    id: String,
}

/// Name of the gallery.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct GalleryParams {
    /// Name of the gallery: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`. The first is a letter
    /// or digit. Names that begin with `restoring--` are reserved.
    #[param(value_type = String, default = "default", example = "default")]
    pub(crate) gallery: GalleryName,
}

/// What happens to an item whose id is stored already.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConflictParams {
    /// What happens if an item with the same id is stored already. `replace`: the new item replaces
    /// it. `skip`: the stored item stays. `error`: the stored item stays, and the new one fails
    /// with status 409. The check and the write are one transaction.
    #[param(value_type = OnConflict, inline)]
    pub(crate) on_conflict: Option<OnConflict>,
}

/// Label and metadata of an item.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ItemParams {
    /// Label of the item: up to 256 bytes.
    #[param(example = "cat")]
    label: Option<String>,
    /// Metadata of the item: a JSON object of up to 16 KiB. In a JSON body, the object itself.
    #[param(value_type = String, example = r#"{"year": 2024}"#)]
    metadata: Option<Value>,
}

impl ItemParams {
    /// Checks the label and the metadata.
    pub(crate) fn check(self) -> Result<(Option<Label>, Metadata)> {
        let label = self.label.map(Label::new).transpose()?;
        let metadata = match parsed_object("metadata", self.metadata)? {
            Some(metadata) => Metadata::from_value(metadata)?,
            None => Metadata::default(),
        };
        Ok((label, metadata))
    }
}

/// Features of an item that is a vector, in JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct FeaturesParam {
    pub(crate) features: Option<Vec<f32>>,
}

/// Options of vectors.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct VectorParams {
    /// How tokens are pooled into a vector. The default is that of the gallery, and `cls` for the
    /// first item of a gallery.
    #[param(value_type = AnyPooling, inline)]
    pooling: Option<Pooling>,
    /// Number of last blocks whose pooled vectors are concatenated. The default is that of the
    /// gallery, and 1 for the first item of a gallery.
    #[param(minimum = 1, maximum = 4)]
    layers: Option<usize>,
    /// Fingerprint of the features in `vector`. It must be that of the gallery.
    fingerprint: Option<String>,
}

/// Conditions that items must fulfill.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilterParams {
    /// Label of the items.
    #[param(example = "cat")]
    label: Option<String>,
    /// Conditions on label and metadata, as JSON: `{"label": C, "metadata": {"member": C, …}}`. An
    /// item must fulfill all of them. Each condition `C` is a value to equal, a list
    /// `{"any": [..]}` of such values, or a range of `gt`, `gte`, `lt` and `lte`. A member that is
    /// null counts as absent. In a JSON body, the object itself. Flags limit the number of
    /// conditions and of values.
    // Not called `filter`, which is the resampling filter of images.
    #[serde(rename = "where")]
    #[param(
        value_type = String,
        example = r#"{"metadata": {"year": {"gte": 2020}, "place": {"any": ["Bern", "Basel"]}}}"#
    )]
    filter: Option<Value>,
}

impl FilterParams {
    /// Combines the label and the conditions.
    pub(crate) fn filter(self) -> Result<Option<ItemFilter>> {
        let filter = match parsed_object("where", self.filter)? {
            Some(filter) => Some(ItemFilter::parse(&filter)?),
            None => None,
        };
        let Some(label) = self.label else {
            return Ok(filter);
        };
        let of_label = ItemFilter::of_label(Label::new(label)?.as_str());
        match filter {
            None => Ok(Some(of_label)),
            Some(filter) if filter.label.is_none() => Ok(Some(ItemFilter {
                label: of_label.label,
                ..filter
            })),
            Some(_) => {
                let detail = "given in `where`, too; leave one of them out";
                Err(Error::option("label", detail))
            }
        }
    }
}

/// Options of the search for neighbors.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchParams {
    /// Number of neighbors.
    #[param(minimum = 1, maximum = 1000, default = 20)]
    k: usize,
    /// Whether to compare with every item instead of using the approximate index.
    #[param(default = false)]
    exact: bool,
}

impl Default for SearchParams {
    fn default() -> Self {
        let SearchOptions { k, exact } = SearchOptions::default();
        Self { k, exact }
    }
}

/// An image or a vector to store in JSON, along with any of the operation's options.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"image": EXAMPLE_IMAGE, "label": "cat", "metadata": {"year": 2024}}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct NewItemJson {
    /// An image file, in base64 or as a `data:` URI.
    image: Option<String>,
    /// A vector instead of an image: finite numbers, as many as the gallery's vectors have. Its
    /// length may be anything but 0.
    vector: Option<Vec<f32>>,
    /// Features of a vector for probes: CLS and the mean of the patch tokens of its image, one
    /// after the other. Without them, probes do not learn from the item.
    features: Option<Vec<f32>>,
    /// Any of the operation's options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// Images or a vector in JSON, along with any of the operation's options.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"image": EXAMPLE_IMAGE, "label": "cat", "metadata": {"year": 2024}}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct ImageOrVectorJson {
    /// An image file, in base64 or as a `data:` URI.
    image: Option<String>,
    /// Several image files, if the operation accepts several.
    images: Option<Vec<String>>,
    /// A vector instead of images: finite numbers, as many as the gallery's vectors have. Its
    /// length may be anything but 0.
    vector: Option<Vec<f32>>,
    /// Any of the operation's options.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}
