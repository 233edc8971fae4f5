//! `POST /v1/match`.

use axum::{
    extract::{FromRequest, Request},
    response::Response,
};
use bytes::Bytes;
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::maps::{PictureRequest, answer_file};
use crate::{
    features::{
        matching::{Geometry, Level, Transform},
        npy,
        pca::Foreground,
    },
    http::{
        AppState, Rejection, Result,
        api::schema::{File, ImageParams, ImagesJson},
        openapi::FeatureProblems,
        request::model::ModelParams,
        response::negotiate::Representation,
    },
    service::{Extractor, MatchOptions, MatchedImages},
};

const OFFERS: [Representation; 3] = [
    Representation::Png,
    Representation::Json,
    Representation::Npy,
];

/// Options of matches.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct MatchParams {
    /// Tokens that are compared. `early`, those of the fourth block from the end, tell the places
    /// of one scene apart. `last`, those of the last block, match parts of different objects of a
    /// kind.
    #[param(inline)]
    tokens: Level,
    /// Minimum cosine similarity of a match.
    #[param(minimum = -1.0, maximum = 1.0, default = 0.0)]
    min_score: f32,
    /// Maximum quotient of the distances to the best patch and to the second best; matches above
    /// it are ambiguous and are left out. The second best is at least two patches away from the
    /// best. The distance of two patches is √(2 − 2·cosine). At 1 all are kept. The default is 0.9
    /// for `tokens=early`, and 1 for `tokens=last`.
    #[param(maximum = 1.0, example = 0.9)]
    ratio: Option<f32>,
    /// Minimum number of the eight patches around a patch whose matches move alike. A match without
    /// support is usually wrong if both images show the same object. The default is 3 for
    /// `tokens=early`, and 0 for `tokens=last`.
    #[param(maximum = 8, example = 3)]
    support: Option<usize>,
    /// Patches that take part. `auto`: only the foreground, the side of the first principal
    /// component of both images that the attention favors.
    #[param(inline)]
    foreground: Foreground,
    /// Whether points of the second image lie between patches, where the similarity has its peak,
    /// or in the center of a patch.
    #[param(default = true)]
    subpixel: bool,
    /// Transform from the first image to the second that most matches agree with, found by RANSAC
    /// with a fixed seed. `similarity`: shift, rotation and one scale. `homography`: any view of a
    /// plane. A match is an inlier if the transform maps its point to within 0.75 patches of the
    /// other point.
    #[param(inline)]
    geometry: Geometry,
    /// Maximum number of matches. The most similar are returned; the transform is found on all.
    #[param(minimum = 1, example = 100)]
    max: Option<usize>,
}

impl Default for MatchParams {
    fn default() -> Self {
        let MatchOptions {
            tokens,
            min_score,
            ratio,
            support,
            subpixel,
            foreground,
            geometry,
            max,
        } = MatchOptions::default();
        Self {
            tokens,
            min_score,
            ratio,
            support,
            foreground,
            subpixel,
            geometry,
            max,
        }
    }
}

impl From<MatchParams> for MatchOptions {
    fn from(params: MatchParams) -> Self {
        Self {
            tokens: params.tokens,
            min_score: params.min_score,
            ratio: params.ratio,
            support: params.support,
            subpixel: params.subpixel,
            foreground: params.foreground,
            geometry: params.geometry,
            max: params.max,
        }
    }
}

/// A request with two images.
pub(crate) struct MatchRequest {
    images: [Bytes; 2],
    request: PictureRequest<MatchParams>,
}

impl FromRequest<AppState> for MatchRequest {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let mut request = PictureRequest::read(request, state, &OFFERS).await?;
        let images = request.take_images("a match")?;
        Ok(Self { images, request })
    }
}

/// Matches of two images.
#[derive(Serialize, ToSchema)]
pub(crate) struct MatchesJson<'a> {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Fingerprint of the features.
    fingerprint: &'a str,
    /// The first image and the second.
    images: [MatchedImage; 2],
    /// Matches, the most similar first. Points are pixels of the upright image from its top left
    /// corner, across and down.
    matches: Vec<MatchItem>,
    /// Indices of the matches that agree with `transform`. Null without `geometry`.
    inliers: Option<Vec<usize>>,
    /// Three rows of three numbers: (x, y, 1) in the first image becomes a multiple of (x, y, 1) in
    /// the second. Null without `geometry`, and if fewer than 8 matches agree on one.
    #[schema(value_type = Option<Vec<Vec<f64>>>)]
    transform: Option<Transform>,
}

/// An image of a match.
#[derive(Serialize, ToSchema)]
pub(crate) struct MatchedImage {
    /// Width of the upright image, in pixels.
    #[schema(example = 640)]
    width: usize,
    /// Height of the upright image, in pixels.
    #[schema(example = 480)]
    height: usize,
    /// Height and width in patches.
    grid: [usize; 2],
    /// `size` to which the image was resized, in pixels. Smaller than the default if that would
    /// give too many patches.
    #[schema(example = 518)]
    size: usize,
}

/// Points that match.
#[derive(Serialize, ToSchema)]
pub(crate) struct MatchItem {
    /// Point of the first image, the center of a patch.
    a: [f64; 2],
    /// Point of the second image.
    b: [f64; 2],
    /// Cosine similarity of the two patches with those around them, -1 to 1.
    score: f32,
    /// Whether the match agrees with `transform`. Absent without `geometry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    inlier: Option<bool>,
}

impl<'a> MatchesJson<'a> {
    pub(crate) fn new(
        model: &'a Extractor,
        found: &MatchedImages,
        geometry: Geometry,
        sizes: [usize; 2],
    ) -> Self {
        let matches = found.matches.iter();
        let agree =
            |(index, inlier): (usize, Option<bool>)| (inlier == Some(true)).then_some(index);
        let inliers = matches.clone().map(|points| points.inlier).enumerate();
        Self {
            model: model.name(),
            fingerprint: model.engine().fingerprint(),
            images: [0, 1].map(|index| MatchedImage {
                width: found.placements[index].image.width,
                height: found.placements[index].image.height,
                grid: [found.grids[index].height, found.grids[index].width],
                size: sizes[index],
            }),
            inliers: (geometry != Geometry::None).then(|| inliers.filter_map(agree).collect()),
            transform: found.transform,
            matches: matches
                .map(|points| MatchItem {
                    a: points.a,
                    b: points.b,
                    score: points.score,
                    inlier: points.inlier,
                })
                .collect(),
        }
    }
}

/// Match two images.
///
/// Finds the patches of two images that are each other's nearest neighbors, and so places that
/// correspond: of one object in two photographs, or, with `tokens=last`, of two objects of a kind.
/// A PNG shows both images side by side, as the model sees them. A point has the same color in
/// both; the color says where in the first image it is. Lines join the best match of each region;
/// with `geometry`, matches that do not agree with the transform are gray.
#[utoipa::path(
    post,
    path = "/v1/match",
    tag = "features",
    params(ModelParams, MatchParams, ImageParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "`image/png`: both images with their matches. `application/x-npy`: f32 \
                `[matches, 6]`, of each match the point of the first image, the point of the \
                second, the score, and 1 for an inlier of `geometry` or else 0.",
            content(
                (File = "image/png"),
                (MatchesJson<'_> = "application/json"),
                (File = "application/x-npy"),
            ),
        ),
        FeatureProblems,
    )
)]
pub(crate) async fn match_images(
    MatchRequest { images, request }: MatchRequest,
) -> Result<Response> {
    let options = MatchOptions::from(request.options);
    let model = request.model.of_new();
    let drawn = request.representation == Representation::Png;
    let mut found = model
        .match_images(images, &request.image, options, drawn)
        .await?;
    let sizes = model.map_sizes(&request.image);
    let sizes = found.value.grids.map(|grid| sizes.of(grid));
    let file = match request.representation {
        Representation::Npy => Some(npy::encode(&table(&found.value))?),
        _ => found.value.png.take(),
    };
    answer_file(
        request.representation,
        file,
        || MatchesJson::new(&model, &found.value, options.geometry, sizes),
        &sizes,
        &found.stages,
    )
}

/// Returns the matches as rows of numbers.
fn table(found: &MatchedImages) -> Array2<f32> {
    let mut table = Array2::zeros((found.matches.len(), 6));
    for (mut row, points) in table.rows_mut().into_iter().zip(&found.matches) {
        let [ax, ay, bx, by] =
            [points.a[0], points.a[1], points.b[0], points.b[1]].map(|value| value as f32);
        let inlier = f32::from(u8::from(points.inlier == Some(true)));
        row.assign(&ndarray::arr1(&[ax, ay, bx, by, points.score, inlier]));
    }
    table
}
