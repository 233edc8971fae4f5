//! `/v1/galleries/{name}/map`: a position in the plane for each item of a gallery.

use std::collections::HashMap;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    gallery::{DocumentKey, GalleryName, ItemId, Label},
    http::{
        AppState, Result,
        api::job::{JobJson, WaitParams, answer_job, large_json},
        openapi::{GalleryProblems, SearchProblems},
        request::{model::ModelParams, options::Options, path::NamePath},
    },
    service::{GalleryMap, JobState, Service},
};

/// State of the map of a gallery, and the map.
#[derive(Serialize, ToSchema)]
pub(crate) struct MapJson {
    /// Name of the gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    #[serde(flatten)]
    job: JobJson,
    /// The map, unless it is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<PlacedJson>,
}

/// A map. Its lists have an entry for each item that has a place, in the order of the gallery.
#[derive(Serialize, ToSchema)]
struct PlacedJson {
    /// Time when items were last placed, in milliseconds since 1970.
    #[schema(example = 1_790_000_000_000_u64)]
    made_ms: u64,
    /// Number of items that were stored later and have no place yet. An item whose image was
    /// replaced has its old place until the next request for a map.
    #[schema(example = 0)]
    missing: u64,
    /// Ids of the items.
    #[schema(value_type = Vec<String>, example = json!(["cats/chelsea.jpg"]))]
    ids: Vec<ItemId>,
    /// Positions `[x, y]`; similar items are near each other.
    #[schema(example = json!([[4.21, 9.87]]))]
    points: Vec<[f32; 2]>,
    /// Labels that items have, sorted.
    #[schema(value_type = Vec<String>, example = json!(["cat"]))]
    labels: Vec<Label>,
    /// Index of the label of each item in `labels`; null for an item without.
    #[schema(example = json!([0]))]
    label_of: Vec<Option<u32>>,
}

impl From<GalleryMap> for PlacedJson {
    fn from(map: GalleryMap) -> Self {
        let labels = map.items.iter().filter_map(|item| item.label.as_ref());
        let mut labels: Vec<Label> = labels.cloned().collect();
        labels.sort_unstable();
        labels.dedup();
        let index: HashMap<&Label, u32> = labels.iter().zip(0..).collect();
        let label_of = map.items.iter().map(|item| {
            let label = item.label.as_ref()?;
            index.get(label).copied()
        });
        Self {
            made_ms: map.made_ms,
            missing: map.missing,
            label_of: label_of.collect(),
            points: map.items.iter().map(|item| item.point).collect(),
            ids: map.items.into_iter().map(|item| item.id).collect(),
            labels,
        }
    }
}

/// Options of a map.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct MapParams {
    /// Whether all items get new places. By default items that have a place keep it, and others are
    /// put where their most similar ones are, unless most items are new.
    #[param(default = false)]
    again: bool,
}

/// Map a gallery.
///
/// Gives each item a position in the plane, where similar ones are near each other: the method of
/// UMAP on the 15 most similar items of each. The same vectors give the same map. It is made in the
/// background with low priority; only one map, audit or training is made at a time. It is kept
/// until the gallery is deleted or restored.
#[utoipa::path(
    post,
    path = "/v1/galleries/{name}/map",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams, MapParams, WaitParams,
    ),
    responses(
        (
            status = 202, description = "The map is being made. `Location` is its URL.",
            body = MapJson,
        ),
        (status = 200, description = "With `wait`: the map is ready.", body = MapJson),
        SearchProblems,
    )
)]
pub(crate) async fn map_gallery(
    State(state): State<AppState>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<Response> {
    let service = &state.service;
    options.check_model_of(service, &name).await?;
    let MapParams { again } = options.take()?;
    let wait: WaitParams = options.take()?;
    options.reject_unknown()?;
    let job = service.maps()?.start(&name, again).await?;
    let ended = wait.wait(&state, &job).await?;
    let (state, map) = service.maps()?.get(&name).await?;
    let gallery = name.clone();
    let json = large_json(move || map_json(gallery, state, map)).await?;
    Ok(answer_job(ended, DocumentKey::of_map(&name), json))
}

/// Get the map of a gallery, or its progress.
#[utoipa::path(
    get,
    path = "/v1/galleries/{name}/map",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    responses((status = 200, description = "The map.", body = MapJson), GalleryProblems)
)]
pub(crate) async fn get_map(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<Response> {
    options.check_model_of(&service, &name).await?;
    options.reject_unknown()?;
    let (state, map) = service.maps()?.get(&name).await?;
    large_json(move || map_json(name, state, map)).await
}

/// Cancel the making of a gallery's map, or delete the map.
///
/// While a map is made only that is cancelled, and the last one stays.
#[utoipa::path(
    delete,
    path = "/v1/galleries/{name}/map",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    responses(
        (status = 204, description = "No map is made any more, or the map is deleted."),
        GalleryProblems,
    )
)]
pub(crate) async fn delete_map(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<StatusCode> {
    options.check_model_of(&service, &name).await?;
    options.reject_unknown()?;
    service.maps()?.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn map_json(gallery: GalleryName, state: JobState, map: Option<GalleryMap>) -> MapJson {
    MapJson {
        gallery,
        job: state.into(),
        map: map.map(PlacedJson::from),
    }
}
