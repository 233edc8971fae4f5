//! `POST /v1/attention`.

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    AppState,
    body::ImageRequest,
    embed::different_grids,
    negotiate::{Representation, answer, multipart_answer, negotiate},
    problem::Problem,
    schema::{AttentionParams, File, ImageParams, ImagesForm, ImagesJson, RenderingParams},
};
use crate::{
    error::{Error, Result},
    features::npy,
    service::{AttentionMaps, AttentionOptions, Form, ImageOptions},
};

/// Attention maps of the images of one request.
#[derive(Serialize, ToSchema)]
pub(super) struct AttentionJson<'a> {
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
pub(super) struct AttentionItem {
    /// Which image of the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `[heads][height · width]`: the raw softmax values of the patches, row by row. What CLS gives to itself and to
    /// registers is left out, so a row sums to less than 1.
    attention: Vec<Vec<f32>>,
}

/// Draw attention maps.
///
/// What the CLS token attends to in the last block, per head. Each picture is scaled to its own range.
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
        (status = 200, description = "`image/png`: the map, `head=all` a labelled grid, several images side by side; \
            `multipart/mixed`: one PNG per image; `application/x-npy`: f32 `[heads, h, w]`, the raw softmax values, for \
            several images of one grid `[n, heads, h, w]`.",
            content((File = "image/png"), (AttentionJson<'_> = "application/json"), (File = "application/x-npy"),
                (File = "multipart/mixed"))),
        (status = "4XX", description = "The request is at fault.", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The server is.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_attention_map(State(state): State<AppState>, mut request: ImageRequest) -> Result<Response> {
    const OFFERS: [Representation; 4] =
        [Representation::Png, Representation::Json, Representation::Npy, Representation::Multipart];
    let representation = negotiate(&request.headers, &OFFERS)?;
    let image: ImageOptions = request.options.take()?;
    let options: AttentionOptions = request.options.take()?;
    let rendering = request.options.take()?;
    std::mem::take(&mut request.options).finish()?;

    let form = match representation {
        Representation::Png => Form::Picture(rendering),
        Representation::Multipart => Form::Pictures(rendering),
        _ => Form::Numbers,
    };
    let images = std::mem::take(&mut request.images);
    let (maps, pictures, stages) = state.service.attention(images, &image, options, form).await?;
    match representation {
        Representation::Multipart => Ok(multipart_answer(pictures, Representation::Png.media_type(), &stages)),
        Representation::Json => Ok(answer(representation, to_json(&state, &maps)?, &stages)),
        Representation::Npy => Ok(answer(representation, to_npy(&maps)?, &stages)),
        _ => Ok(answer(representation, pictures.into_iter().next().unwrap_or_default(), &stages)),
    }
}

fn to_json(state: &AppState, images: &[AttentionMaps]) -> Result<Vec<u8>> {
    let item = |(index, image): (usize, &AttentionMaps)| AttentionItem {
        index,
        grid: [image.grid.height, image.grid.width],
        attention: image.maps.rows().into_iter().map(|row| row.to_vec()).collect(),
    };
    let engine = state.service.engine();
    let answer = AttentionJson {
        model: &engine.spec().name,
        fingerprint: engine.fingerprint(),
        data: images.iter().enumerate().map(item).collect(),
    };
    serde_json::to_vec(&answer).map_err(|error| Error::internal(error.to_string()))
}

fn to_npy(images: &[AttentionMaps]) -> Result<Vec<u8>> {
    let shaped: Vec<_> = images
        .iter()
        .map(|image| image.maps.view().into_shape_with_order((image.maps.nrows(), image.grid.height, image.grid.width)))
        .collect::<Result<_, _>>()
        .map_err(|error| Error::internal(error.to_string()))?;
    match shaped.as_slice() {
        [one] => npy::encode(one),
        several => npy::encode(&ndarray::stack(ndarray::Axis(0), several).map_err(|_| different_grids())?),
    }
}
