//! `GET /v1/gallery`.

use axum::{Json, extract::State};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    http::{
        api::gallery::{
            GalleryOption, ItemJson,
            schema::{FilterParams, GalleryParams, GalleryProblems, PageParams},
            take_filter,
        },
        request::options::Options,
    },
    service::{Page, Service},
};

/// Items in the order in which they were first stored.
#[derive(Serialize, ToSchema)]
pub(crate) struct PageJson {
    /// The items.
    items: Vec<ItemJson>,
    /// The `cursor` of the next page; null if this is the last.
    #[schema(example = "AQAAAAAAAAAR")]
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(default)]
struct PageOptions {
    limit: usize,
    cursor: Option<String>,
}

impl Default for PageOptions {
    fn default() -> Self {
        Self {
            limit: 100,
            cursor: None,
        }
    }
}

/// The first byte of a cursor, so that another kind of it can follow.
const CURSOR: u8 = 1;

/// The cursor of the page after a place.
fn cursor_after(place: u64) -> String {
    let mut bytes = vec![CURSOR];
    bytes.extend_from_slice(&place.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn place_of(cursor: &str) -> Result<u64> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
    match bytes.split_first() {
        Some((&CURSOR, place)) => place.try_into().map(u64::from_be_bytes).ok(),
        _ => None,
    }
    .ok_or_else(|| {
        Error::option(
            "cursor",
            "not one of ours; send the `next` of the page before as it is",
        )
    })
}

/// List items.
///
/// Pages are stable: whatever is written meanwhile, each item that stays is given once.
#[utoipa::path(
    get,
    path = "/v1/gallery",
    tag = "gallery",
    params(PageParams, FilterParams, GalleryParams),
    responses((status = 200, description = "A page of items.", body = PageJson), GalleryProblems)
)]
pub(crate) async fn list_items(
    State(service): State<Service>,
    mut options: Options,
) -> Result<Json<PageJson>> {
    let GalleryOption { gallery } = options.take()?;
    let PageOptions { limit, cursor } = options.take()?;
    let filter = take_filter(&mut options)?;
    options.finish()?;
    let after = cursor.map_or(Ok(0), |cursor| place_of(&cursor))?;
    let Page { items, next } = service
        .page(&gallery, after, limit, filter.as_ref())
        .await?;
    Ok(Json(PageJson {
        items: items.into_iter().map(Into::into).collect(),
        next: next.map(cursor_after),
    }))
}
