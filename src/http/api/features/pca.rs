//! `POST /v1/pca`.

use axum::{extract::State, response::Response};
use ndarray::{Array2, ArrayView3, ShapeError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::maps::{MapRequest, StyleParams, answer_maps, rows};
use crate::{
    features::pca::Foreground,
    gallery::BasisName,
    http::{
        Result,
        api::schema::{File, ImageParams, ImagesJson},
        openapi::FeatureProblems,
        request::model::ModelParams,
    },
    service::{Extractor, PcaAnswer, PcaOptions, Service},
    vision::Grid,
};

/// Options of PCA maps.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct PcaParams {
    /// Number of components. A PNG shows the first three as red, green and blue.
    #[param(minimum = 1, default = 3)]
    components: Option<usize>,
    /// Patches that take part. `auto` keeps the patches on the side of the first component that CLS
    /// attends to, and draws the others black.
    #[param(inline)]
    foreground: Foreground,
    /// Name of a stored basis (`/v1/bases`), to use instead of one that is fitted on the images.
    /// The same part then has the same color in every request.
    #[param(value_type = String, example = "flowers")]
    basis: Option<BasisName>,
}

/// PCA maps of the images of a request, in a shared basis.
#[derive(Serialize, ToSchema)]
pub(crate) struct PcaJson<'a> {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Fingerprint of the features.
    fingerprint: &'a str,
    /// Share of the variance that each component explains.
    explained: &'a [f32],
    /// One entry per image, in the order of the request.
    data: Vec<PcaItem>,
}

impl<'a> PcaJson<'a> {
    fn new(model: &'a Extractor, maps: &'a PcaAnswer, sizes: &[usize]) -> Self {
        let mut data = Vec::with_capacity(maps.grids.len());
        for (index, (map, grid)) in maps.pca.maps.iter().zip(&maps.grids).enumerate() {
            let foreground = maps.pca.foreground.as_ref();
            data.push(PcaItem {
                index,
                grid: [grid.height, grid.width],
                size: sizes[index],
                map: split_rows(&rows(map.view()), grid),
                foreground: foreground.map(|images| split_rows(&images[index], grid)),
            });
        }
        Self {
            model: model.name(),
            fingerprint: model.engine().fingerprint(),
            explained: maps.pca.basis.explained(),
            data,
        }
    }
}

/// PCA map of an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct PcaItem {
    /// Index of the image in the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `size` to which the image was resized, in pixels. Smaller than the default if that would
    /// give too many patches.
    #[schema(example = 518)]
    size: usize,
    /// `[height][width][components]`: values from 0 to 1; background is 0.
    map: Vec<Vec<Vec<f32>>>,
    /// `[height][width]`: whether each patch is foreground. Present with `foreground=auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreground: Option<Vec<Vec<bool>>>,
}

/// Splits the patches of an image into the rows of its grid.
fn split_rows<T: Clone>(patches: &[T], grid: &Grid) -> Vec<Vec<T>> {
    patches.chunks(grid.width).map(<[T]>::to_vec).collect()
}

/// Draw PCA maps.
///
/// Shows the principal components of the patch tokens as colors. The images of a request share one
/// basis, so the same part has the same color in all of them. With `basis`, this holds across
/// requests.
#[utoipa::path(
    post,
    path = "/v1/pca",
    tag = "features",
    params(ModelParams, ImageParams, PcaParams, StyleParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "`image/png`: the map, or several side by side. `multipart/mixed`: one \
                PNG per image. `application/x-npy`: values from 0 to 1, f32 `[h, w, components]`, \
                or `[n, h, w, components]` for several images of one grid.",
            content(
                (File = "image/png"),
                (PcaJson<'_> = "application/json"),
                (File = "application/x-npy"),
                (File = "multipart/mixed"),
            ),
        ),
        FeatureProblems,
    )
)]
pub(crate) async fn create_pca_map(
    State(service): State<Service>,
    request: MapRequest<PcaParams>,
) -> Result<Response> {
    let options = PcaOptions {
        components: request.options.components,
        foreground: request.options.foreground,
        basis: request.options.basis,
    };
    let (model, drawn) = service
        .pca(
            &request.model,
            request.images,
            &request.image,
            options,
            request.format,
        )
        .await?;
    let maps = drawn.value.maps;
    let sizes = model.map_sizes(&request.image);
    let sizes: Vec<usize> = maps.grids.iter().map(|grid| sizes.of(*grid)).collect();
    answer_maps(
        request.representation,
        drawn.value.pngs,
        || PcaJson::new(&model, &maps, &sizes),
        || {
            let maps = maps.pca.maps.iter().zip(&maps.grids);
            maps.map(|(map, grid)| shaped(map, grid)).collect()
        },
        &sizes,
        &drawn.stages,
    )
}

/// Returns a map as `[height, width, components]`.
fn shaped<'a>(map: &'a Array2<f32>, grid: &Grid) -> Result<ArrayView3<'a, f32>, ShapeError> {
    map.view()
        .into_shape_with_order((grid.height, grid.width, map.ncols()))
}
