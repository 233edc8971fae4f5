//! `GET` and `POST /v1/knn`.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::{FromGallery, NeighborJson, OneOrMore, answer_each},
    params::{
        FilterParams, GalleryParams, ImageOrVectorJson, SearchParams, VectorParams,
        take_input_options, take_query,
    },
};
use crate::{
    error::Error,
    gallery::{ItemId, Neighbor},
    http::{
        Result,
        api::schema::ImageParams,
        openapi::{GalleryProblems, SearchProblems},
        request::{body::QueryRequest, model::ModelParams, options::Options},
        response::answer::json,
    },
    service::Service,
};

/// Options of the search for neighbors of a stored item.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ItemQueryParams {
    /// Id of the stored item.
    #[param(value_type = String, required = true, example = "cats/chelsea.jpg")]
    id: Option<String>,
    /// Whether the item itself may be among its neighbors.
    #[param(default = false)]
    include_self: bool,
}

/// Nearest items, the most similar first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Neighbors {
    /// The items.
    neighbors: Vec<NeighborJson>,
}

impl From<Vec<Neighbor>> for Neighbors {
    fn from(neighbors: Vec<Neighbor>) -> Self {
        let neighbors = NeighborJson::list(neighbors);
        Self { neighbors }
    }
}

/// Nearest items of a stored item.
#[derive(Serialize, ToSchema)]
pub(crate) struct NeighborsOfItem {
    /// The query.
    query: ItemQuery,
    /// The items, the most similar first.
    neighbors: Vec<NeighborJson>,
}

/// Query for neighbors of a stored item.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemQuery {
    /// Id of the stored item.
    #[schema(value_type = String, example = "cats/chelsea.jpg")]
    id: ItemId,
    /// Requested number of neighbors.
    #[schema(example = 20)]
    k: usize,
}

/// Find the neighbors of a stored item.
///
/// This does not run the model, so it works with the vectors of any model.
#[utoipa::path(
    get,
    path = "/v1/knn",
    tag = "gallery",
    params(ItemQueryParams, SearchParams, FilterParams, GalleryParams, ModelParams),
    responses(
        (status = 200, description = "The neighbors.", body = FromGallery<NeighborsOfItem>),
        GalleryProblems,
    )
)]
pub(crate) async fn find_neighbors_of_item(
    State(service): State<Service>,
    mut options: Options,
) -> Result<Response> {
    let ItemQueryParams { id, include_self } = options.take()?;
    let model = options.choose_model(&service)?;
    let query = take_query(&mut options)?;
    options.reject_unknown()?;
    let id = id.ok_or_else(|| Error::option("id", "required: the id of a stored item"))?;
    let id = ItemId::new(id)?;
    let found = service
        .galleries()?
        .neighbors_of_item(&model, &query, &id, include_self)
        .await?;
    let (binding, neighbors) = found.value;
    let answer = NeighborsOfItem {
        query: ItemQuery {
            id,
            k: query.search.k,
        },
        neighbors: NeighborJson::list(neighbors),
    };
    let body = FromGallery::new(query.gallery, binding, answer);
    json(&body, &found.stages)
}

/// Find the neighbors of an image or a vector.
///
/// An image is embedded in the same way as the items of the gallery. The answer to several images
/// is a list `data` with an answer or an `error` for each.
#[utoipa::path(
    post,
    path = "/v1/knn",
    tag = "gallery",
    params(SearchParams, FilterParams, GalleryParams, ModelParams, ImageParams, VectorParams),
    request_body(content((ImageOrVectorJson = "application/json"))),
    responses(
        (status = 200, description = "The neighbors.", body = FromGallery<OneOrMore<Neighbors>>),
        SearchProblems,
    )
)]
pub(crate) async fn find_neighbors(
    State(service): State<Service>,
    mut request: QueryRequest,
) -> Result<Response> {
    let model = request.options.choose_model(&service)?;
    let query = take_query(&mut request.options)?;
    let input_options = take_input_options(&mut request.options)?;
    request.options.reject_unknown()?;
    let inputs = request.contents.0;
    let answers = service
        .galleries()?
        .neighbors(&model, &query, inputs, &input_options)
        .await?;
    answer_each::<_, Neighbors>(query.gallery, answers)
}
