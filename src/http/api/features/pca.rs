//! `POST /v1/pca`.

use axum::{extract::State, response::Response};
use ndarray::{Array2, ArrayView3, ShapeError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::Result,
    http::{
        api::schema::{File, ImageParams, ImagesForm, ImagesJson, PcaParams, RenderingParams},
        request::body::ImageRequest,
        response::{
            maps::{MapRequest, answer_maps},
            problem::FeatureProblems,
        },
    },
    service::{PcaAnswer, Rendered, Service, Timed},
    vision::Grid,
};

/// PCA maps of the images of one request, in one joint basis.
#[derive(Serialize, ToSchema)]
pub(crate) struct PcaJson<'a> {
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
pub(crate) struct PcaItem {
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
/// The principal components of the patch tokens as colors. Several images share one basis, so that
/// the same part has the same color in all of them; with `basis` also in those of other requests.
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
        FeatureProblems,
    )
)]
pub(crate) async fn create_pca_map(
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
    } = service.pca(images, &image, options, format).await?;
    let arrays = || maps.pca.maps.iter().zip(&maps.grids).map(shaped).collect();
    answer_maps(
        representation,
        pngs,
        || to_json(&service, &maps),
        arrays,
        &stages,
    )
}

/// `[height, width, components]`.
fn shaped<'a>((map, grid): (&'a Array2<f32>, &Grid)) -> Result<ArrayView3<'a, f32>, ShapeError> {
    map.view()
        .into_shape_with_order((grid.height, grid.width, map.ncols()))
}

fn to_json<'a>(service: &'a Service, maps: &'a PcaAnswer) -> PcaJson<'a> {
    let item = |(index, (map, grid)): (usize, (&Array2<f32>, &Grid))| {
        let tokens: Vec<Vec<f32>> = map.rows().into_iter().map(|row| row.to_vec()).collect();
        let foreground = maps.pca.foreground.as_ref().map(|images| &images[index]);
        PcaItem {
            index,
            grid: [grid.height, grid.width],
            map: tokens.chunks(grid.width).map(<[_]>::to_vec).collect(),
            foreground: foreground
                .map(|image| image.chunks(grid.width).map(<[_]>::to_vec).collect()),
        }
    };
    let engine = service.engine();
    PcaJson {
        model: &engine.spec().name,
        fingerprint: engine.fingerprint(),
        explained: maps.pca.basis.explained(),
        data: maps
            .pca
            .maps
            .iter()
            .zip(&maps.grids)
            .enumerate()
            .map(item)
            .collect(),
    }
}
