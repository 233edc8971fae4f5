//! Matches of two images.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    cached_features::CachedFeatures,
    extractor::{ExtractRequest, Extractor},
    images::ImageOptions,
    stages::Timed,
};
use crate::{
    engine::RequestedOutputs,
    error::{Error, Result},
    features::{
        attention,
        matching::{Conditions, Geometry, Level, Match, Patches, Transform, estimate, matches},
        pca::{Foreground, joint_foreground},
        render::{self, Line},
    },
    vision::{Grid, Placement},
};

/// Distance from its place under the transform within which a match is an inlier, in patches.
const TOLERANCE: f64 = 0.75;

/// Options of matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatchOptions {
    /// Tokens that are compared.
    pub tokens: Level,
    /// Minimum cosine, -1 to 1.
    pub min_score: f32,
    /// [`Conditions::ratio`]; the default depends on the tokens.
    pub ratio: Option<f32>,
    /// [`Conditions::support`]; the default depends on the tokens.
    pub support: Option<usize>,
    /// Whether to look for the peak between patches.
    pub subpixel: bool,
    /// Patches that take part. The foreground is determined on both images together.
    pub foreground: Foreground,
    /// Transform that the matches are checked with.
    pub geometry: Geometry,
    /// Maximum number of matches; the best are kept. The transform is found before.
    pub max: Option<usize>,
}

impl Default for MatchOptions {
    fn default() -> Self {
        Self {
            tokens: Level::default(),
            min_score: 0.0,
            ratio: None,
            support: None,
            subpixel: true,
            foreground: Foreground::default(),
            geometry: Geometry::default(),
            max: None,
        }
    }
}

impl MatchOptions {
    /// Rejects values out of range, and returns the conditions on a match.
    fn conditions(&self) -> Result<Conditions> {
        // Parts of different objects are never as distinct, nor are those around them alike.
        let (ratio, support) = match self.tokens {
            Level::Early => (0.9, 3),
            Level::Last => (1.0, 0),
        };
        let ratio = self.ratio.unwrap_or(ratio);
        let support = self.support.unwrap_or(support);
        if !(-1.0..=1.0).contains(&self.min_score) {
            return Err(Error::out_of_range("min_score", self.min_score, "-1 to 1"));
        }
        if !(ratio > 0.0 && ratio <= 1.0) {
            return Err(Error::out_of_range(
                "ratio",
                ratio,
                "above 0, and at most 1",
            ));
        }
        if support > 8 {
            return Err(Error::out_of_range("support", support, "0 to 8"));
        }
        if self.max == Some(0) {
            return Err(Error::out_of_range("max", 0, "at least 1"));
        }
        Ok(Conditions {
            min_score: self.min_score,
            ratio,
            support,
            subpixel: self.subpixel,
        })
    }
}

/// Matches of two images, the most similar first.
#[derive(Debug)]
pub struct MatchedImages {
    /// The matches.
    pub matches: Vec<MatchedPoints>,
    /// From pixels of the first image to pixels of the second; `None` if none was requested, or if
    /// too few matches agree.
    pub transform: Option<Transform>,
    /// The two images, as the model sees them.
    pub placements: [Placement; 2],
    /// Patches of each image.
    pub grids: [Grid; 2],
    /// Drawing of the matches as PNG, if it was requested.
    pub png: Option<Vec<u8>>,
}

/// Points of two images that match, in pixels of the upright images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatchedPoints {
    /// Point of the first image: the center of a patch.
    pub a: [f64; 2],
    /// Point of the second image.
    pub b: [f64; 2],
    /// Cosine of the two patches with those around them, -1 to 1.
    pub score: f32,
    /// Whether the transform maps one point near the other; `None` if none was requested.
    pub inlier: Option<bool>,
}

impl Extractor {
    /// Finds the matches of two images, and draws them if `drawn`.
    pub async fn match_images(
        &self,
        files: [Bytes; 2],
        image: &ImageOptions,
        options: MatchOptions,
        drawn: bool,
    ) -> Result<Timed<MatchedImages>> {
        let conditions = options.conditions()?;
        let max_pixels = self.limits().decode.max_pixels;
        let request = ExtractRequest {
            preparation: self.map_preparation(image),
            outputs: RequestedOutputs {
                layers_patch: true,
                attention: options.foreground == Foreground::Auto,
                ..RequestedOutputs::default()
            },
            with_image: drawn,
        };
        self.compute(files.to_vec(), request, move |images| {
            let [a, b] = images else {
                return Err(Error::internal("a match is of two images"));
            };
            let mut found = matched(a, b, &options, &conditions)?;
            if drawn {
                found.png = Some(draw(a, b, &found, max_pixels)?);
            }
            Ok(found)
        })
        .await
    }
}

/// Finds the matches of two images.
fn matched(
    a: &CachedFeatures,
    b: &CachedFeatures,
    options: &MatchOptions,
    conditions: &Conditions,
) -> Result<MatchedImages> {
    let chosen = match options.foreground {
        Foreground::None => None,
        Foreground::Auto => {
            let tokens = [a, b].map(CachedFeatures::last_layer);
            let attention = [a, b].map(|image| attention::mean(image.cls_attention()).to_vec());
            Some(joint_foreground(&tokens, &attention)?)
        }
    };
    let chosen = chosen.as_deref();
    let one = patches(a, options.tokens, chosen.map(|chosen| &*chosen[0]));
    let other = patches(b, options.tokens, chosen.map(|chosen| &*chosen[1]));
    let found = matches(&one, &other, conditions);
    let points = |found: &Match| {
        let [across, down] = found.peak_offset.map(f64::from);
        let from = a.center_of(found.a, [0.0; 2]);
        let to = b.center_of(found.b, [across, down]);
        (a.placement.to_image(from), b.placement.to_image(to))
    };
    let pairs: Vec<_> = found.iter().map(points).collect();
    let patch = b.patch_side();
    let tolerance = b.placement.scale().map(|scale| TOLERANCE * scale * patch);
    let estimated = estimate(&pairs, options.geometry, tolerance);
    let inlier = |index: usize| {
        let estimated = estimated.as_ref();
        (options.geometry != Geometry::None)
            .then(|| estimated.is_some_and(|estimated| estimated.inliers[index]))
    };
    let matches = pairs.iter().zip(&found).enumerate();
    let matches = matches.map(|(index, (&(a, b), found))| MatchedPoints {
        a,
        b,
        score: found.score,
        inlier: inlier(index),
    });
    Ok(MatchedImages {
        matches: matches.take(options.max.unwrap_or(usize::MAX)).collect(),
        transform: estimated.map(|estimated| estimated.transform),
        placements: [a.placement, b.placement],
        grids: [a.grid(), b.grid()],
        png: None,
    })
}

/// Returns what is compared of an image.
fn patches<'a>(image: &'a CachedFeatures, level: Level, chosen: Option<&'a [bool]>) -> Patches<'a> {
    Patches {
        tokens: match level {
            Level::Early => image.first_layer(),
            Level::Last => image.last_layer(),
        },
        grid: image.grid(),
        chosen,
    }
}

/// Draws both images as the model sees them, and their matches.
fn draw(
    a: &Arc<CachedFeatures>,
    b: &Arc<CachedFeatures>,
    found: &MatchedImages,
    max_pixels: u64,
) -> Result<Vec<u8>> {
    let lines = found.matches.iter().map(|points| Line {
        from: a.placement.to_input(points.a).map(|value| value as f32),
        to: b.placement.to_input(points.b).map(|value| value as f32),
        is_outlier: points.inlier == Some(false),
    });
    let lines: Vec<Line> = lines.collect();
    render::png(&render::joined_by_lines(
        a.image(),
        b.image(),
        &lines,
        max_pixels,
    )?)
}
