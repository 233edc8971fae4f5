//! `POST /v1/similarity`.

use axum::{extract::State, response::Response};
use ndarray::Array2;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::Result,
    http::{
        api::schema::{
            File, ImageParams, ImagesForm, ImagesJson, RenderingParams, SimilarityParams,
        },
        request::body::ImageRequest,
        response::{
            maps::{MapRequest, answer_maps},
            problem::FeatureProblems,
        },
    },
    service::{Rendered, Service, SimilarityMaps, Timed},
};

/// How alike a place is to the patches of the images of one request.
#[derive(Serialize, ToSchema)]
pub(crate) struct SimilarityJson<'a> {
    /// The model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Identifies the features.
    fingerprint: &'a str,
    /// The place: patches of the first image.
    query: RegionJson,
    /// One entry per image.
    data: Vec<SimilarityItem>,
}

/// A rectangle of patches: rows `top` to `bottom` and columns `left` to `right`, the last ones
/// included.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegionJson {
    #[schema(example = 12)]
    top: usize,
    #[schema(example = 20)]
    left: usize,
    #[schema(example = 12)]
    bottom: usize,
    #[schema(example = 20)]
    right: usize,
}

/// How alike the patches of an image are to the place.
#[derive(Serialize, ToSchema)]
pub(crate) struct SimilarityItem {
    /// Which image of the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `[height][width]`: the cosine between tokens, -1 to 1.
    similarity: Vec<Vec<f32>>,
}

/// Compare a place with every patch.
///
/// A patch or a box of the first image against all patches of this and of every other image of the
/// request, by the cosine between their tokens. Where there are several patches in the box, their
/// mean direction is compared. In a picture all maps have one scale, from the least to the most
/// alike patch, and the place has a frame.
#[utoipa::path(
    post,
    path = "/v1/similarity",
    tag = "features",
    params(SimilarityParams, ImageParams, RenderingParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImagesJson = "application/json"),
    )),
    responses(
        (status = 200, description = "`image/png`: the map, or several side by side; `multipart/mixed`: one PNG per image; \
            `application/x-npy`: f32 `[h, w]`, for several images of one grid `[n, h, w]`.",
            content((File = "image/png"), (SimilarityJson<'_> = "application/json"), (File = "application/x-npy"),
                (File = "multipart/mixed"))),
        FeatureProblems,
    )
)]
pub(crate) async fn create_similarity_map(
    State(service): State<Service>,
    request: ImageRequest,
) -> Result<Response> {
    let MapRequest {
        images,
        image,
        options,
        format,
        representation,
        admission: _admission,
    } = MapRequest::read(request)?;
    let Timed {
        value: Rendered { maps, pngs },
        stages,
    } = service
        .extractor
        .similarity(images, &image, options, format)
        .await?;
    let arrays = || Ok(maps.maps.iter().map(|map| map.view()).collect());
    answer_maps(
        representation,
        pngs,
        || to_json(&service, &maps),
        arrays,
        &stages,
    )
}

fn to_json<'a>(service: &'a Service, maps: &SimilarityMaps) -> SimilarityJson<'a> {
    let item = |(index, map): (usize, &Array2<f32>)| SimilarityItem {
        index,
        grid: [map.nrows(), map.ncols()],
        similarity: map.rows().into_iter().map(|row| row.to_vec()).collect(),
    };
    let (rows, columns) = (&maps.region.rows, &maps.region.columns);
    let engine = service.engine();
    SimilarityJson {
        model: &engine.spec().name,
        fingerprint: engine.fingerprint(),
        query: RegionJson {
            top: rows.start,
            left: columns.start,
            bottom: rows.end - 1,
            right: columns.end - 1,
        },
        data: maps.maps.iter().enumerate().map(item).collect(),
    }
}
