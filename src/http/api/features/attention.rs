//! `POST /v1/attention`.

use axum::response::Response;
use ndarray::{ArrayView3, ShapeError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::maps::{MapRequest, StyleParams, answer_maps, indexed, rows};
use crate::{
    features::{attention::HeadChoice, render::Colormap},
    http::{
        Result,
        api::schema::{File, ImageParams, ImagesJson},
        openapi::FeatureProblems,
        request::model::ModelParams,
    },
    service::{AttentionMaps, AttentionOptions},
};

/// Options of attention maps.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttentionParams {
    /// `mean` or `max` over the heads, the number of a head, or `all`: every head, drawn as a
    /// labeled grid. The default is `mean` for PNG, and `all` for JSON and `.npy`.
    #[param(value_type = String, example = "all")]
    head: Option<HeadChoice>,
    /// Share of the attention to keep. Only the patches with the highest attention that together
    /// reach this share are shown; DINO's videos use 0.6.
    #[param(minimum = 0.0, maximum = 1.0)]
    threshold: Option<f32>,
    /// Colors of the map.
    #[param(inline)]
    colormap: Colormap,
}

/// Attention maps of the images of a request.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttentionJson<'a> {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Fingerprint of the features.
    fingerprint: &'a str,
    /// One entry per image, in the order of the request.
    data: Vec<AttentionItem>,
}

/// Attention maps of an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttentionItem {
    /// Index of the image in the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `size` to which the image was resized, in pixels. Smaller than the default if that would
    /// give too many patches.
    #[schema(example = 518)]
    size: usize,
    /// `[heads][height · width]`: softmax values of the patches, row by row. Attention to CLS and
    /// registers is left out, so each map sums to less than 1.
    attention: Vec<Vec<f32>>,
}

/// Draw attention maps.
///
/// Shows which patches the CLS token attends to in the last block, per head. Each map is scaled to
/// its own range of values.
#[utoipa::path(
    post,
    path = "/v1/attention",
    tag = "features",
    params(ModelParams, ImageParams, AttentionParams, StyleParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "`image/png`: the map; with `head=all` a labeled grid; several images \
                are side by side. `multipart/mixed`: one PNG per image. `application/x-npy`: \
                softmax values, f32 `[heads, h, w]`, or `[n, heads, h, w]` for several images of \
                one grid.",
            content(
                (File = "image/png"),
                (AttentionJson<'_> = "application/json"),
                (File = "application/x-npy"),
                (File = "multipart/mixed"),
            ),
        ),
        FeatureProblems,
    )
)]
pub(crate) async fn create_attention_map(request: MapRequest<AttentionParams>) -> Result<Response> {
    let options = AttentionOptions {
        head: request.options.head,
        threshold: request.options.threshold,
        colormap: request.options.colormap,
    };
    let model = request.model.of_new();
    let drawn = model
        .attention(request.images, &request.image, options, request.format)
        .await?;
    let maps = drawn.value.maps;
    let sizes = model.map_sizes(&request.image);
    let sizes: Vec<usize> = maps.iter().map(|image| sizes.of(image.grid)).collect();
    answer_maps(
        request.representation,
        drawn.value.pngs,
        || AttentionJson {
            model: model.name(),
            fingerprint: model.engine().fingerprint(),
            data: indexed(&maps, |index, image| AttentionItem {
                index,
                grid: [image.grid.height, image.grid.width],
                size: sizes[index],
                attention: rows(image.maps.view()),
            }),
        },
        || maps.iter().map(shaped).collect(),
        &sizes,
        &drawn.stages,
    )
}

/// Returns the maps of an image as `[heads, height, width]`.
fn shaped(image: &AttentionMaps) -> Result<ArrayView3<'_, f32>, ShapeError> {
    let shape = (image.maps.nrows(), image.grid.height, image.grid.width);
    image.maps.view().into_shape_with_order(shape)
}
