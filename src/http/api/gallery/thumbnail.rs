//! `GET /v1/gallery/{id}/thumbnail`.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result},
    gallery::{ItemId, Parts},
    hex,
    http::{
        api::{
            gallery::{
                GalleryOption, NamePath,
                schema::{GalleryParams, GalleryProblems},
            },
            schema::File,
        },
        request::options::Options,
    },
    service::Service,
};

/// Show an item's thumbnail.
///
/// What the model saw of the image, small. The answer has an `ETag`, so that a page which shows it
/// again need not load it again.
#[utoipa::path(
    get,
    path = "/v1/gallery/{id}/thumbnail",
    tag = "gallery",
    params(
        ("id" = String, Path, description = "The item's id, percent-encoded.", example = "cats%2Fchelsea.jpg"),
        GalleryParams,
    ),
    responses(
        (status = 200, description = "The thumbnail.", body = File, content_type = "image/jpeg"),
        (status = 304, description = "It is the one that `If-None-Match` names."),
        GalleryProblems,
    )
)]
pub(crate) async fn get_thumbnail(
    State(service): State<Service>,
    NamePath(id): NamePath<ItemId>,
    headers: HeaderMap,
    mut options: Options,
) -> Result<Response> {
    let GalleryOption { gallery } = options.take()?;
    options.finish()?;
    let stored = service
        .gallery()?
        .require_item(
            &gallery,
            &id,
            Parts {
                thumbnail: true,
                ..Parts::NONE
            },
        )
        .await?;
    let thumbnail = stored.thumbnail.ok_or_else(|| {
        let detail = format!(
            "{:?} has no thumbnail: it was stored as a vector",
            id.as_str()
        );
        Error::new(Kind::NotFound, detail)
    })?;
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&thumbnail)[..12]));
    // The item may be replaced at any time, so a cache asks each time, and is answered in a few
    // bytes.
    let caching = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let same = |candidate: &str| {
        candidate.trim() == "*" || candidate.trim().trim_start_matches("W/") == tag
    };
    if known.flat_map(|value| value.split(',')).any(same) {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, [(header::CONTENT_TYPE, "image/jpeg")], thumbnail).into_response())
}
