//! `POST /v1/similarity`.

use std::str::FromStr;

use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::{IntoParams, ToSchema};

use super::maps::{MapRequest, StyleParams, answer_maps, indexed, rows};
use crate::{
    features::render::Colormap,
    http::{
        Result,
        api::schema::{File, ImageParams, ImagesJson},
        openapi::FeatureProblems,
        request::model::ModelParams,
    },
    service::{Extractor, SimilarityMaps, SimilarityOptions},
    vision::Grid,
};

/// Options of patch similarity: the query region, and the colors.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SimilarityParams {
    /// `row,column` of a patch of the first image, counted from 0 at the top left. The `grid` of a
    /// JSON response is the number of rows and columns.
    #[serde(deserialize_with = "numbers")]
    #[param(value_type = String, example = "4,7", pattern = "^[0-9]{1,5},[0-9]{1,5}$")]
    patch: Option<[usize; 2]>,
    /// `left,top,right,bottom` of a box on the first image, instead of a patch: shares of its width
    /// and height, from 0 to 1. The region is all patches whose centers lie in the box.
    #[serde(rename = "box", deserialize_with = "numbers")]
    #[param(value_type = String, example = "0.4,0.3,0.6,0.5")]
    region: Option<[f32; 4]>,
    /// Colors of the map.
    #[param(inline)]
    colormap: Colormap,
}

/// Parses comma-separated numbers.
fn numbers<'de, D, T, const N: usize>(deserializer: D) -> Result<Option<[T; N]>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
{
    let text = String::deserialize(deserializer)?;
    let numbers: Option<Vec<T>> = text
        .split(',')
        .map(|number| number.trim().parse().ok())
        .collect();
    let numbers = numbers.and_then(|numbers| <[T; N]>::try_from(numbers).ok());
    numbers
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is not {N} comma-separated numbers")))
}

/// Similarity of a query region to the patches of the images of a request.
#[derive(Serialize, ToSchema)]
pub(crate) struct SimilarityJson<'a> {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Fingerprint of the features.
    fingerprint: &'a str,
    /// Query region, in patches of the first image.
    query: RegionJson,
    /// One entry per image, in the order of the request.
    data: Vec<SimilarityItem>,
}

impl<'a> SimilarityJson<'a> {
    fn new(model: &'a Extractor, maps: &SimilarityMaps, sizes: &[usize]) -> Self {
        let region = &maps.region;
        Self {
            model: model.name(),
            fingerprint: model.engine().fingerprint(),
            query: RegionJson {
                top: region.rows.start,
                left: region.columns.start,
                bottom: region.rows.end - 1,
                right: region.columns.end - 1,
            },
            data: indexed(&maps.maps, |index, map| SimilarityItem {
                index,
                grid: [map.nrows(), map.ncols()],
                size: sizes[index],
                similarity: rows(map.view()),
            }),
        }
    }
}

/// A rectangle of patches: rows `top` to `bottom` and columns `left` to `right`, both inclusive.
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

/// Similarity of the query region to the patches of an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct SimilarityItem {
    /// Index of the image in the request.
    index: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `size` to which the image was resized, in pixels. Smaller than the default if that would
    /// give too many patches.
    #[schema(example = 518)]
    size: usize,
    /// `[height][width]`: cosine similarity of the tokens, -1 to 1.
    similarity: Vec<Vec<f32>>,
}

/// Compare a region with every patch.
///
/// Computes the cosine similarity between a patch or a box of the first image and every patch of
/// every image of the request. A box of several patches is compared by the mean direction of their
/// tokens. A PNG scales all maps alike, from the least to the most similar patch, and frames the
/// query region.
#[utoipa::path(
    post,
    path = "/v1/similarity",
    tag = "features",
    params(ModelParams, SimilarityParams, ImageParams, StyleParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "`image/png`: the map, or several side by side. `multipart/mixed`: one \
                PNG per image. `application/x-npy`: cosine similarities, f32 `[h, w]`, or \
                `[n, h, w]` for several images of one grid.",
            content(
                (File = "image/png"),
                (SimilarityJson<'_> = "application/json"),
                (File = "application/x-npy"),
                (File = "multipart/mixed"),
            ),
        ),
        FeatureProblems,
    )
)]
pub(crate) async fn create_similarity_map(
    request: MapRequest<SimilarityParams>,
) -> Result<Response> {
    let options = SimilarityOptions {
        patch: request.options.patch,
        region: request.options.region,
        colormap: request.options.colormap,
    };
    let model = request.model.of_new();
    let drawn = model
        .similarity(request.images, &request.image, options, request.format)
        .await?;
    let maps = drawn.value.maps;
    let sizes = model.map_sizes(&request.image);
    let sizes = maps.maps.iter().map(|map| {
        let (height, width) = map.dim();
        sizes.of(Grid { height, width })
    });
    let sizes: Vec<usize> = sizes.collect();
    answer_maps(
        request.representation,
        drawn.value.pngs,
        || SimilarityJson::new(&model, &maps, &sizes),
        || Ok(maps.maps.iter().map(|map| map.view()).collect()),
        &sizes,
        &drawn.stages,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_is_two_numbers() {
        let read = |text: &str| serde_json::from_value(json!({"patch": text}));
        let params: SimilarityParams = read(" 12, 20").unwrap();
        assert_eq!(params.patch, Some([12, 20]));
        for text in ["", "1", "1,2,3", "-1,2", "1.5,2", "a,b"] {
            let read: Result<SimilarityParams, _> = read(text);
            assert!(read.is_err(), "{text:?}");
        }
    }
}
