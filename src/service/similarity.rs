//! Similarity maps: the cosine similarity of a region of an image to every patch of all images.

use std::sync::Arc;

use bytes::Bytes;
use ndarray::Array2;

use super::{
    cached_features::CachedFeatures,
    extractor::Extractor,
    images::ImageOptions,
    maps::{MapFormat, Rendered},
    stages::Timed,
};
use crate::{
    error::{Error, Result},
    features::{
        render::{self, Colormap, Style},
        similarity::{Region, cosines, describe},
    },
    vision::{Grid, RgbImage},
};

/// Options of similarity maps. Exactly one of `patch` and `region` is required.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SimilarityOptions {
    /// Row and column of a patch of the first image.
    pub patch: Option<[usize; 2]>,
    /// Left, top, right and bottom of a box on the first image, as shares of its width and height,
    /// 0 to 1.
    pub region: Option<[f32; 4]>,
    /// Colors of a rendering.
    pub colormap: Colormap,
}

impl SimilarityOptions {
    /// Rejects options that do not name one region.
    fn check(&self) -> Result<()> {
        let is_box = |sides @ [left, top, right, bottom]: [f32; 4]| {
            sides.iter().all(|side| (0.0..=1.0).contains(side)) && left < right && top < bottom
        };
        let (option, detail) = match (self.patch, self.region) {
            (None, None) => (
                "patch",
                "missing; send `patch=row,column`, or `box=left,top,right,bottom` with sides as \
                 shares of the image",
            ),
            (Some(_), Some(_)) => ("box", "does not go with `patch`; send one of the two"),
            (None, Some(sides)) if !is_box(sides) => (
                "box",
                "must be left,top,right,bottom, each 0 to 1, left less than right and top less \
                 than bottom",
            ),
            _ => return Ok(()),
        };
        Err(Error::option(option, detail))
    }

    fn region(&self, grid: Grid) -> Result<Region> {
        if let Some(sides) = self.region {
            return Ok(Region::of_box(grid, sides));
        }
        let [row, column] = self.patch.unwrap_or_default();
        Region::of_patch(grid, row, column).ok_or_else(|| {
            let detail = format!(
                "{row},{column} is outside of the image; it has rows 0 to {} and columns 0 to {}",
                grid.height - 1,
                grid.width - 1
            );
            Error::option("patch", detail)
        })
    }
}

/// Similarity maps of the images of one request.
#[derive(Debug)]
pub struct SimilarityMaps {
    /// Patches of the first image that all others are compared with.
    pub region: Region,
    /// `[height, width]` for each image: cosine similarities, -1 to 1.
    pub maps: Vec<Array2<f32>>,
}

impl SimilarityMaps {
    /// Draws the maps in one scale, so that a color means the same in all of them. The region has a
    /// frame.
    fn draw(
        &self,
        images: &[Arc<CachedFeatures>],
        colormap: Colormap,
        style: Style,
    ) -> Vec<RgbImage> {
        let values = || self.maps.iter().flatten().copied();
        let low = values().fold(f32::INFINITY, f32::min);
        let high = values().fold(f32::NEG_INFINITY, f32::max);
        let range = if high > low { high - low } else { 1.0 };
        let mut renderings = Vec::with_capacity(images.len());
        for (map, image) in self.maps.iter().zip(images) {
            let scaled: Vec<f32> = map.iter().map(|value| (value - low) / range).collect();
            renderings.push(image.draw(&scaled, 1, style, colormap));
        }
        if let (Some(rendering), Some(image)) = (renderings.first_mut(), images.first()) {
            render::frame(rendering, image.grid(), &self.region);
        }
        renderings
    }
}

impl Extractor {
    /// Computes the similarity of a region of the first image to each patch of every image.
    pub async fn similarity(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: SimilarityOptions,
        format: MapFormat,
    ) -> Result<Timed<Rendered<SimilarityMaps>>> {
        format.check()?;
        options.check()?;
        let max_pixels = self.limits().decode.max_pixels;
        self.compute_maps(files, image, move |images| {
            let first = images.first();
            let first = first.ok_or_else(|| Error::internal("the request has no images"))?;
            let region = options.region(first.grid())?;
            let query = describe(first.patch_tokens(), first.grid(), &region);
            let maps = images
                .iter()
                .map(|image| cosines(query.view(), image.patch_tokens(), image.grid()))
                .collect();
            let maps = SimilarityMaps { region, maps };
            format.render(maps, max_pixels, |maps, style| {
                maps.draw(images, options.colormap, style)
            })
        })
        .await
    }
}
