//! How alike a place of an image is to every patch of it, and of other images.

use std::sync::Arc;

use bytes::Bytes;
use ndarray::Array2;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    ImageOptions, Service, Stages,
    images::CachedFeatures,
    maps::{Form, Rendering, finish, patch_tokens, photo},
};
use crate::{
    engine::RequestedOutputs,
    error::{Error, Result},
    features::{
        render::{self, Colormap},
        similarity::{Region, cosines, describe},
    },
    vision::{Grid, RgbImage},
};

/// The place, and how the maps are colored.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SimilarityOptions {
    /// Row and column of a patch of the first image.
    #[serde(deserialize_with = "numbers")]
    pub patch: Option<[usize; 2]>,
    /// Left, top, right and bottom of a box on the first image, as shares of its width and height.
    #[serde(rename = "box", deserialize_with = "numbers")]
    pub region: Option<[f32; 4]>,
    /// Colors of the picture.
    pub colormap: Colormap,
}

/// Reads numbers with commas between them.
fn numbers<'de, D, T, const N: usize>(deserializer: D) -> Result<Option<[T; N]>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
{
    let text = String::deserialize(deserializer)?;
    let numbers: Option<Vec<T>> = text
        .split(',')
        .map(|number| number.trim().parse().ok())
        .collect();
    let numbers = numbers.and_then(|numbers| <[T; N]>::try_from(numbers).ok());
    numbers.map(Some).ok_or_else(|| {
        D::Error::custom(format!(
            "{text:?} is not {N} numbers with commas between them"
        ))
    })
}

impl SimilarityOptions {
    /// # Errors
    /// [`crate::error::Kind::InvalidOption`] unless there is one place, and a box that is one.
    fn check(&self) -> Result<()> {
        match (self.patch, self.region) {
            (None, None) => Err(Error::option(
                "patch",
                "there is none; name the place by `patch=row,column` or by `box=left,top,right,bottom`, with sides as \
                 shares of the picture",
            )),
            (Some(_), Some(_)) => Err(Error::option(
                "box",
                "does not go with `patch`; send one of the two",
            )),
            (None, Some(sides @ [left, top, right, bottom])) => {
                let inside = sides.iter().all(|side| (0.0..=1.0).contains(side));
                if inside && left < right && top < bottom {
                    return Ok(());
                }
                let detail = "must be left,top,right,bottom, each 0 to 1, left less than right and top less than bottom";
                Err(Error::option("box", detail))
            }
            (Some(_), None) => Ok(()),
        }
    }

    fn region(&self, grid: Grid) -> Result<Region> {
        if let Some(sides) = self.region {
            return Ok(Region::of_box(grid, sides));
        }
        let [row, column] = self.patch.unwrap_or_default();
        Region::of_patch(grid, row, column).ok_or_else(|| {
            let detail = format!(
                "{row},{column} lies outside of the image, which has rows 0 to {} and columns 0 to {}",
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
    /// The patches of the first image that all others are compared with.
    pub region: Region,
    /// `[h, w]` of each image: cosines, -1 to 1.
    pub maps: Vec<Array2<f32>>,
}

impl SimilarityMaps {
    /// The maps in one scale, so that the same color means the same in all of them; the place has
    /// a frame.
    fn draw(
        &self,
        views: &[Arc<CachedFeatures>],
        colormap: Colormap,
        rendering: &Rendering,
    ) -> Result<Vec<RgbImage>> {
        let values = || self.maps.iter().flatten().copied();
        let low = values().fold(f32::INFINITY, f32::min);
        let high = values().fold(f32::NEG_INFINITY, f32::max);
        let range = if high > low { high - low } else { 1.0 };
        let draw = |(index, (map, view)): (usize, (&Array2<f32>, &Arc<CachedFeatures>))| {
            let scaled: Vec<f32> = map.iter().map(|value| (value - low) / range).collect();
            let mut picture = render::draw(
                &scaled,
                1,
                view.features.grid,
                photo(view)?,
                rendering.style(),
                colormap,
            );
            if index == 0 {
                render::frame(&mut picture, &self.region, rendering.output);
            }
            Ok(picture)
        };
        self.maps.iter().zip(views).enumerate().map(draw).collect()
    }
}

impl Service {
    /// How alike a place of the first image is to each patch of every image, and the PNG files that
    /// `form` asks for.
    ///
    /// # Errors
    /// The first image that cannot be used, by its index; [`crate::error::Kind::InvalidOption`] for
    /// a bad option.
    pub async fn similarity(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: SimilarityOptions,
        form: Form,
    ) -> Result<(SimilarityMaps, Vec<Vec<u8>>, Stages)> {
        form.check()?;
        options.check()?;
        let wanted = RequestedOutputs {
            patch_tokens: true,
            ..RequestedOutputs::default()
        };
        let seen = self
            .see_for_maps(
                files,
                image.over(&self.engine.spec().map_preprocessing()),
                wanted,
            )
            .await?;
        let max_pixels = self.limits.decode.max_pixels;
        let work = move |views: &[Arc<CachedFeatures>]| {
            let first = &views
                .first()
                .ok_or_else(|| Error::internal("there are no images"))?
                .features;
            let region = options.region(first.grid)?;
            let query = describe(patch_tokens(first)?, first.grid, &region);
            let map = |view: &Arc<CachedFeatures>| {
                Ok(cosines(
                    query.view(),
                    patch_tokens(&view.features)?,
                    view.features.grid,
                ))
            };
            let maps = SimilarityMaps {
                region,
                maps: views.iter().map(map).collect::<Result<_>>()?,
            };
            let pictures = form.encode(max_pixels, |rendering| {
                maps.draw(views, options.colormap, rendering)
            })?;
            Ok((maps, pictures))
        };
        let ((maps, pictures), stages) = finish(self, seen, work).await?;
        Ok((maps, pictures, stages))
    }
}
