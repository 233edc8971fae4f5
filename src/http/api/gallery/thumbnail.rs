//! `GET /v1/gallery/{id}/thumbnail`.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::params::{GalleryParams, IdPath};
use crate::{
    error::{Error, Kind},
    gallery::{ItemId, Parts},
    hex,
    http::{
        Result,
        api::schema::File,
        openapi::GalleryProblems,
        request::{model::ModelParams, options::Options, path::NamePath},
    },
    service::Service,
};

/// Get an item's thumbnail.
///
/// It shows the whole image, with what the model's crop leaves out. The response has an `ETag`, so
/// that a client need not load an unchanged thumbnail twice.
#[utoipa::path(
    get,
    path = "/v1/gallery/{id}/thumbnail",
    tag = "gallery",
    params(IdPath, GalleryParams, ModelParams),
    responses(
        (status = 200, description = "The thumbnail.", body = File, content_type = "image/jpeg"),
        (status = 304, description = "The thumbnail is the one that `If-None-Match` names."),
        GalleryProblems,
    )
)]
pub(crate) async fn get_thumbnail(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    headers: HeaderMap,
    mut options: Options,
) -> Result<Response> {
    let GalleryParams { gallery } = options.take()?;
    options.check_model_of(&service, &gallery).await?;
    options.reject_unknown()?;
    let parts = Parts {
        thumbnail: true,
        ..Parts::NONE
    };
    let store = service.galleries()?.store();
    let stored = store.require_item(&gallery, &id, parts).await?;
    let thumbnail = stored.thumbnail.ok_or_else(|| {
        let id = id.as_str();
        let detail = format!("{id:?} has no thumbnail: it was stored as a vector");
        Error::new(Kind::NotFound, detail)
    })?;
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&thumbnail)[..12]));
    // The item may be replaced at any time, so a cache revalidates each time, at the cost of a few
    // bytes.
    let caching = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.trim_start_matches("W/") == tag);
    if known {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, [(header::CONTENT_TYPE, "image/jpeg")], thumbnail).into_response())
}
