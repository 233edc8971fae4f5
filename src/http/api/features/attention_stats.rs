//! `POST /v1/attention/stats`.

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    http::{
        api::schema::{File, ImageParams, ImagesForm, ImagesJson},
        request::body::ImageRequest,
        response::{
            negotiate::{Representation, answer, negotiate},
            problem::FeatureProblems,
        },
    },
    service::{ImageHeadStats, Service, Timed},
};

/// What the heads attend to, in numbers.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeadStatsJson<'a> {
    /// The model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Identifies the features.
    fingerprint: &'a str,
    /// One entry per image.
    data: Vec<HeadStatsItem>,
}

/// The heads on an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeadStatsItem {
    /// Which image of the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// Share of the patches that are foreground, as `/v1/pca?foreground=auto` shows them. An even
    /// map has this share of its mass there.
    #[schema(example = 0.41)]
    foreground_area: f32,
    /// One entry per head.
    heads: Vec<HeadJson>,
    /// `[heads][heads]`: what two heads have in common, 0 (no patch) to 1 (all): the sum over the
    /// patches of the smaller of their two shares.
    overlap: Vec<Vec<f32>>,
    /// Mean overlap of two different heads; the lower, the more they attend to different things.
    /// Null for a single head.
    #[schema(example = 0.55)]
    mean_overlap: Option<f32>,
}

/// A head.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeadJson {
    /// Its number.
    #[schema(example = 0)]
    head: usize,
    /// Entropy of its map in nats: 0 if all is on one patch, ln of the number of patches if it is
    /// even.
    #[schema(example = 5.9)]
    entropy: f32,
    /// The number of patches that an even spread of this entropy covers.
    #[schema(example = 365.0)]
    effective_patches: f32,
    /// Share of its map on the foreground.
    #[schema(example = 0.83)]
    foreground_mass: f32,
}

/// Compare attention heads.
///
/// Do different heads attend to different things? How far the map of each head is spread, how much
/// of it lies on the foreground, and what each two heads have in common. Of the attention of CLS in
/// the last block, as shares of what it gives to patches.
#[utoipa::path(
    post,
    path = "/v1/attention/stats",
    tag = "features",
    params(ImageParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImagesJson = "application/json"),
    )),
    responses((status = 200, description = "The numbers.", body = HeadStatsJson<'_>), FeatureProblems)
)]
pub(crate) async fn compare_heads(
    State(service): State<Service>,
    request: ImageRequest,
) -> Result<Response> {
    let ImageRequest {
        images,
        mut options,
        headers,
        admission: _admission,
    } = request;
    negotiate(&headers, &[Representation::Json])?;
    let image = options.take_image()?;
    options.finish()?;
    let Timed {
        value: stats,
        stages,
    } = service.extractor.head_stats(images, &image).await?;
    let engine = service.engine();
    let json = HeadStatsJson {
        model: &engine.spec().name,
        fingerprint: engine.fingerprint(),
        data: stats.iter().enumerate().map(item).collect(),
    };
    let body = serde_json::to_vec(&json).map_err(|error| Error::internal(error.to_string()))?;
    Ok(answer(Representation::Json, body, &stages))
}

fn item((index, image): (usize, &ImageHeadStats)) -> HeadStatsItem {
    let stats = &image.stats;
    let head = |head: usize| HeadJson {
        head,
        entropy: stats.entropy[head],
        effective_patches: stats.effective_patches[head],
        foreground_mass: stats.foreground[head],
    };
    HeadStatsItem {
        index,
        grid: [image.grid.height, image.grid.width],
        foreground_area: image.foreground_area,
        heads: (0..stats.entropy.len()).map(head).collect(),
        overlap: stats
            .overlap
            .rows()
            .into_iter()
            .map(|row| row.to_vec())
            .collect(),
        mean_overlap: stats.mean_overlap(),
    }
}
