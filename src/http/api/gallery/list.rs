//! `GET /v1/gallery`.

use axum::{Json, extract::State};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::ItemJson,
    params::{FilterParams, GalleryParams},
};
use crate::{
    error::Error,
    http::{
        Result,
        openapi::GalleryProblems,
        request::{model::ModelParams, options::Options},
    },
    service::{Page, Service},
};

/// Version of the cursor's format, its first byte.
const CURSOR_VERSION: u8 = 1;

/// Options of a page of items.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Maximum number of items on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
    /// The `next` of the previous page.
    cursor: Option<String>,
}

impl Default for PageParams {
    fn default() -> Self {
        let limit = 100;
        Self {
            limit,
            cursor: None,
        }
    }
}

/// Items in the order in which they were first stored.
#[derive(Serialize, ToSchema)]
pub(crate) struct PageJson {
    /// The items.
    items: Vec<ItemJson>,
    /// The `cursor` of the next page. Null on the last page.
    #[schema(example = "AQAAAAAAAAAR")]
    next: Option<String>,
}

/// List items.
///
/// The order is stable: during concurrent writes, an item that stays is still listed exactly once.
#[utoipa::path(
    get,
    path = "/v1/gallery",
    tag = "gallery",
    params(PageParams, FilterParams, GalleryParams, ModelParams),
    responses(
        (status = 200, description = "A page of items.", body = PageJson),
        GalleryProblems,
    )
)]
pub(crate) async fn list_items(
    State(service): State<Service>,
    mut options: Options,
) -> Result<Json<PageJson>> {
    let GalleryParams { gallery } = options.take()?;
    options.check_model_of(&service, &gallery).await?;
    let PageParams { limit, cursor } = options.take()?;
    let filter = options.take::<FilterParams>()?.filter()?;
    options.reject_unknown()?;
    let after = cursor.as_deref().map_or(Ok(0), place_of)?;
    let Page { items, next } = service
        .galleries()?
        .page(&gallery, after, limit, filter.as_ref())
        .await?;
    Ok(Json(PageJson {
        items: items.into_iter().map(ItemJson::from).collect(),
        next: next.map(cursor_after),
    }))
}

/// Returns the cursor of the page after a place.
fn cursor_after(place: u64) -> String {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend_from_slice(&place.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn place_of(cursor: &str) -> Result<u64, Error> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
    let place = match bytes.split_first() {
        Some((&CURSOR_VERSION, place)) => place.try_into().map(u64::from_be_bytes).ok(),
        _ => None,
    };
    let detail = "not a cursor of this server; send the `next` of the previous page unchanged";
    place.ok_or_else(|| Error::option("cursor", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        for place in [0, 17, u64::MAX] {
            assert_eq!(place_of(&cursor_after(place)).unwrap(), place);
        }
        assert_eq!(cursor_after(17), "AQAAAAAAAAAR");
    }

    #[test]
    fn other_cursors_are_rejected() {
        for cursor in ["", "abc", "AgAAAAAAAAAR", "AQAAAAAAAAARAA"] {
            assert!(place_of(cursor).is_err(), "{cursor:?}");
        }
    }
}
