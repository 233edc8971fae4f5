//! `POST /v1/pca`.

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    AppState,
    body::ImageRequest,
    embed::different_grids,
    negotiate::{Representation, answer, multipart_answer, negotiate},
    problem::Problem,
    schema::{File, ImageParams, ImagesForm, ImagesJson, PcaParams, RenderingParams},
};
use crate::{
    error::{Error, Result},
    features::npy,
    service::{Form, ImageOptions, PcaAnswer, PcaOptions},
};

/// PCA maps of the images of one request, in one joint basis.
#[derive(Serialize, ToSchema)]
pub(super) struct PcaJson<'a> {
    /// The model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Identifies the features.
    fingerprint: &'a str,
    /// Share of the variance that each component explains.
    explained: &'a [f32],
    /// One entry per image.
    data: Vec<PcaItem>,
}

/// The PCA map of an image.
#[derive(Serialize, ToSchema)]
pub(super) struct PcaItem {
    /// Which image of the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `[height][width][components]`, 0 to 1; background is 0.
    map: Vec<Vec<Vec<f32>>>,
    /// `[height][width]`, with `foreground=auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreground: Option<Vec<Vec<bool>>>,
}

/// Draw PCA maps.
///
/// The principal components of the patch tokens as colours. Several images share one basis, so that the same part has the
/// same colour in all of them.
#[utoipa::path(
    post,
    path = "/v1/pca",
    tag = "features",
    params(ImageParams, PcaParams, RenderingParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImagesJson = "application/json"),
    )),
    responses(
        (status = 200, description = "`image/png`: the map, or several side by side; `multipart/mixed`: one PNG per image; \
            `application/x-npy`: f32 `[h, w, components]` in 0 to 1, for several images of one grid `[n, h, w, components]`.",
            content((File = "image/png"), (PcaJson<'_> = "application/json"), (File = "application/x-npy"),
                (File = "multipart/mixed"))),
        (status = "4XX", description = "The request is at fault.", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The server is.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_pca_map(State(state): State<AppState>, mut request: ImageRequest) -> Result<Response> {
    const OFFERS: [Representation; 4] =
        [Representation::Png, Representation::Json, Representation::Npy, Representation::Multipart];
    let representation = negotiate(&request.headers, &OFFERS)?;
    let image: ImageOptions = request.options.take()?;
    let options: PcaOptions = request.options.take()?;
    let rendering = request.options.take()?;
    std::mem::take(&mut request.options).finish()?;

    let form = match representation {
        Representation::Png => Form::Picture(rendering),
        Representation::Multipart => Form::Pictures(rendering),
        _ => Form::Numbers,
    };
    let (maps, pictures, stages) =
        state.service.pca(std::mem::take(&mut request.images), &image, options, form).await?;
    match representation {
        Representation::Multipart => Ok(multipart_answer(pictures, Representation::Png.media_type(), &stages)),
        Representation::Json => Ok(answer(representation, to_json(&state, &maps)?, &stages)),
        Representation::Npy => Ok(answer(representation, to_npy(&maps)?, &stages)),
        _ => Ok(answer(representation, pictures.into_iter().next().unwrap_or_default(), &stages)),
    }
}

fn to_json(state: &AppState, maps: &PcaAnswer) -> Result<Vec<u8>> {
    let item = |(index, (map, grid)): (usize, (&ndarray::Array2<f32>, &crate::vision::Grid))| {
        let tokens: Vec<Vec<f32>> = map.rows().into_iter().map(|row| row.to_vec()).collect();
        let foreground = maps.pca.foreground.as_ref().map(|images| &images[index]);
        PcaItem {
            index,
            grid: [grid.height, grid.width],
            map: tokens.chunks(grid.width).map(<[_]>::to_vec).collect(),
            foreground: foreground.map(|image| image.chunks(grid.width).map(<[_]>::to_vec).collect()),
        }
    };
    let engine = state.service.engine();
    let answer = PcaJson {
        model: &engine.spec().name,
        fingerprint: engine.fingerprint(),
        explained: maps.pca.basis.explained(),
        data: maps.pca.maps.iter().zip(&maps.grids).enumerate().map(item).collect(),
    };
    serde_json::to_vec(&answer).map_err(|error| Error::internal(error.to_string()))
}

fn to_npy(maps: &PcaAnswer) -> Result<Vec<u8>> {
    let shaped: Vec<_> = maps
        .pca
        .maps
        .iter()
        .zip(&maps.grids)
        .map(|(map, grid)| map.view().into_shape_with_order((grid.height, grid.width, map.ncols())))
        .collect::<Result<_, _>>()
        .map_err(|error| Error::internal(error.to_string()))?;
    match shaped.as_slice() {
        [one] => npy::encode(one),
        several => npy::encode(&ndarray::stack(ndarray::Axis(0), several).map_err(|_| different_grids())?),
    }
}
