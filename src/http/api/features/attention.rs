//! `POST /v1/attention`.

use axum::{extract::State, response::Response};
use ndarray::{ArrayView3, ShapeError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::Result,
    http::{
        api::schema::{
            AttentionParams, File, ImageParams, ImagesForm, ImagesJson, RenderingParams,
        },
        request::body::ImageRequest,
        response::{
            maps::{MapRequest, answer_maps},
            problem::FeatureProblems,
        },
    },
    service::{AttentionMaps, Rendered, Service, Timed},
};

/// Attention maps of the images of one request.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttentionJson<'a> {
    /// The model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Identifies the features.
    fingerprint: &'a str,
    /// One entry per image.
    data: Vec<AttentionItem>,
}

/// Where CLS looks in an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttentionItem {
    /// Which image of the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `[heads][height · width]`: the raw softmax values of the patches, row by row. What CLS gives
    /// to itself and to registers is left out, so a row sums to less than 1.
    attention: Vec<Vec<f32>>,
}

/// Draw attention maps.
///
/// What the CLS token attends to in the last block, per head. Each picture is scaled to its own
/// range.
#[utoipa::path(
    post,
    path = "/v1/attention",
    tag = "features",
    params(ImageParams, AttentionParams, RenderingParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImagesJson = "application/json"),
    )),
    responses(
        (status = 200, description = "`image/png`: the map, `head=all` a labeled grid, several images side by side; \
            `multipart/mixed`: one PNG per image; `application/x-npy`: f32 `[heads, h, w]`, the raw softmax values, for \
            several images of one grid `[n, heads, h, w]`.",
            content((File = "image/png"), (AttentionJson<'_> = "application/json"), (File = "application/x-npy"),
                (File = "multipart/mixed"))),
        FeatureProblems,
    )
)]
pub(crate) async fn create_attention_map(
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
        .attention(images, &image, options, format)
        .await?;
    let arrays = || maps.iter().map(shaped).collect();
    answer_maps(
        representation,
        pngs,
        || to_json(&service, &maps),
        arrays,
        &stages,
    )
}

/// `[heads, height, width]`.
fn shaped(image: &AttentionMaps) -> Result<ArrayView3<'_, f32>, ShapeError> {
    image.maps.view().into_shape_with_order((
        image.maps.nrows(),
        image.grid.height,
        image.grid.width,
    ))
}

fn to_json<'a>(service: &'a Service, images: &[AttentionMaps]) -> AttentionJson<'a> {
    let item = |(index, image): (usize, &AttentionMaps)| AttentionItem {
        index,
        grid: [image.grid.height, image.grid.width],
        attention: image
            .maps
            .rows()
            .into_iter()
            .map(|row| row.to_vec())
            .collect(),
    };
    let engine = service.engine();
    AttentionJson {
        model: &engine.spec().name,
        fingerprint: engine.fingerprint(),
        data: images.iter().enumerate().map(item).collect(),
    }
}
