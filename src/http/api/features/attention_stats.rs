//! `POST /v1/attention/stats`.

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::maps::{indexed, rows, with_sizes};
use crate::{
    http::{
        Result,
        api::schema::{ImageParams, ImagesJson},
        openapi::FeatureProblems,
        request::{body::ImageRequest, model::ModelParams},
        response::{
            answer::json,
            negotiate::{Representation, negotiate},
        },
    },
    service::{ImageHeadStats, Service},
};

/// Statistics of the attention heads.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeadStatsJson<'a> {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Fingerprint of the features.
    fingerprint: &'a str,
    /// One entry per image, in the order of the request.
    data: Vec<HeadStatsItem>,
}

/// Statistics of the attention heads on an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeadStatsItem {
    /// Index of the image in the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `size` to which the image was resized, in pixels. Smaller than the default if that would
    /// give too many patches.
    #[schema(example = 518)]
    size: usize,
    /// Share of the patches that are foreground, as `/v1/pca?foreground=auto` shows them. Uniform
    /// attention has this share of its mass on the foreground.
    #[schema(example = 0.41)]
    foreground_area: f32,
    /// One entry per head.
    heads: Vec<HeadJson>,
    /// `[heads][heads]`: overlap of each pair of heads, from 0 (no common patch) to 1 (equal): the
    /// sum over the patches of the smaller of the two shares.
    overlap: Vec<Vec<f32>>,
    /// Mean overlap of different heads. The lower it is, the more the heads differ. Null for a
    /// model with one head.
    #[schema(example = 0.55)]
    mean_overlap: Option<f32>,
}

impl HeadStatsItem {
    fn new(index: usize, image: &ImageHeadStats, size: usize) -> Self {
        let stats = &image.stats;
        let heads = (0..stats.entropy.len()).map(|head| HeadJson {
            head,
            entropy: stats.entropy[head],
            effective_patches: stats.effective_patches[head],
            foreground_mass: stats.foreground[head],
        });
        Self {
            index,
            grid: [image.grid.height, image.grid.width],
            size,
            foreground_area: image.foreground_area,
            heads: heads.collect(),
            overlap: rows(stats.overlap.view()),
            mean_overlap: stats.mean_overlap(),
        }
    }
}

/// Statistics of an attention head.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeadJson {
    /// Number of the head.
    #[schema(example = 0)]
    head: usize,
    /// Entropy of its attention in nats: 0 if all is on one patch, and the logarithm of the number
    /// of patches if it is uniform.
    #[schema(example = 5.9)]
    entropy: f32,
    /// Number of patches over which uniform attention has this entropy.
    #[schema(example = 365.0)]
    effective_patches: f32,
    /// Share of its attention on the foreground.
    #[schema(example = 0.83)]
    foreground_mass: f32,
}

/// Compare attention heads.
///
/// Measures whether different heads attend to different things: the spread of each head's
/// attention, its share on the foreground, and the overlap of each pair of heads. The attention is
/// that of CLS in the last block, as shares of its attention to patches.
#[utoipa::path(
    post,
    path = "/v1/attention/stats",
    tag = "features",
    params(ModelParams, ImageParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (status = 200, description = "The statistics.", body = HeadStatsJson<'_>),
        FeatureProblems,
    )
)]
pub(crate) async fn compare_heads(
    State(service): State<Service>,
    mut request: ImageRequest,
) -> Result<Response> {
    negotiate(&request.headers, &[Representation::Json])?;
    let model = request.options.choose_model(&service)?.of_new();
    let image: ImageParams = request.options.take()?;
    request.options.reject_unknown()?;
    let image = image.into();
    let images = request.contents.0;
    let stats = model.head_stats(images, &image).await?;
    let sizes = model.map_sizes(&image);
    let sizes: Vec<usize> = stats
        .value
        .iter()
        .map(|image| sizes.of(image.grid))
        .collect();
    let body = HeadStatsJson {
        model: model.name(),
        fingerprint: model.engine().fingerprint(),
        data: indexed(&stats.value, |index, image| {
            HeadStatsItem::new(index, image, sizes[index])
        }),
    };
    Ok(with_sizes(json(&body, &stats.stages)?, &sizes))
}
