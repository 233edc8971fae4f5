//! Output formats of maps, and the way from files to maps.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    cached_features::CachedFeatures,
    extractor::{ExtractRequest, Extractor},
    images::{ImageOptions, Preparation, at_image},
    stages::Timed,
};
use crate::{
    error::{Error, Result},
    features::render::{self, Style},
    vision::{Grid, PatchSize, RgbImage},
};

/// Output format of maps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MapFormat {
    /// Numbers only.
    Numbers,
    /// One PNG; several images are placed side by side.
    SinglePng(Style),
    /// One PNG per image.
    PngPerImage(Style),
}

/// Maps, and their renderings.
#[derive(Debug)]
pub struct Rendered<T> {
    /// The maps as numbers.
    pub maps: T,
    /// PNG files in the requested [`MapFormat`]; empty for numbers.
    pub pngs: Vec<Vec<u8>>,
}

impl MapFormat {
    /// Rejects an opacity out of range.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Numbers => Ok(()),
            Self::SinglePng(style) | Self::PngPerImage(style) => {
                check_share("overlay", style.overlay)
            }
        }
    }

    /// Renders maps with `draw`, which returns one rendering per image. A PNG of several images has
    /// at most `max_pixels`.
    pub(super) fn render<T>(
        &self,
        maps: T,
        max_pixels: u64,
        draw: impl FnOnce(&T, Style) -> Vec<RgbImage>,
    ) -> Result<Rendered<T>> {
        let pngs = match *self {
            Self::Numbers => Vec::new(),
            Self::PngPerImage(style) => {
                let renderings = draw(&maps, style);
                renderings.iter().map(render::png).collect::<Result<_>>()?
            }
            Self::SinglePng(style) => match draw(&maps, style).as_slice() {
                [one] => vec![render::png(one)?],
                several => vec![render::png(&render::strip(several, max_pixels)?)?],
            },
        };
        Ok(Rendered { maps, pngs })
    }
}

/// The sizes to which the images of a request were resized.
#[derive(Debug, Clone, Copy)]
pub struct MapSizes {
    size: usize,
    patch: PatchSize,
}

impl MapSizes {
    /// Returns the `size` of an image with this grid, in pixels. It is smaller than that of the
    /// request if the grid would otherwise have had too many patches.
    pub fn of(&self, grid: Grid) -> usize {
        let shorter = grid.height.min(grid.width) * self.patch.pixels();
        match shorter < self.patch.round_down(self.size) {
            true => shorter,
            false => self.size,
        }
    }
}

/// Rejects a value that is not in 0 to 1.
pub(super) fn check_share(option: &str, value: f32) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::out_of_range(option, value, "0 to 1"))
}

impl Extractor {
    /// Returns the sizes of maps with these options.
    pub fn map_sizes(&self, image: &ImageOptions) -> MapSizes {
        let preprocessing = self.engine().spec().map_preprocessing();
        self.sizes(image.over(&preprocessing).preprocessing.size)
    }

    /// Returns the sizes of images that were requested with this `size`, in pixels.
    pub(super) fn sizes(&self, size: usize) -> MapSizes {
        let patch = self.engine().spec().architecture.patch;
        MapSizes { size, patch }
    }

    /// Extracts the features of all files, then computes maps of them on a blocking thread. Fails
    /// with the first image that cannot be used, by its index. Without an explicit `size`, an image
    /// with too many patches gets the largest size that fits.
    pub(super) async fn compute_maps<T: Send + 'static>(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        compute: impl FnOnce(&[Arc<CachedFeatures>]) -> Result<T> + Send + 'static,
    ) -> Result<Timed<T>> {
        let request = ExtractRequest::for_maps(self.map_preparation(image));
        self.compute(files, request, compute).await
    }

    /// Returns the way from a file to the model's input for a map.
    pub(super) fn map_preparation(&self, image: &ImageOptions) -> Preparation {
        Preparation {
            shrinks: image.overrides.size.is_none(),
            ..image.over(&self.engine().spec().map_preprocessing())
        }
    }

    /// Extracts what `request` says of all files, then computes on a blocking thread. Fails as
    /// [`Self::features_of`] does.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        files: Vec<Bytes>,
        request: ExtractRequest,
        compute: impl FnOnce(&[Arc<CachedFeatures>]) -> Result<T> + Send + 'static,
    ) -> Result<Timed<T>> {
        let extracted = self.features_of(files, request).await?;
        let started = Instant::now();
        let features = extracted.value;
        let work = move || compute(&features);
        let value = self.on_blocking_thread("drawing a map", work).await?;
        Ok(extracted.stages.finish(started, value))
    }

    /// Extracts what `request` says of all files. Fails with the first image that cannot be used,
    /// by its index.
    pub(super) async fn features_of(
        &self,
        files: Vec<Bytes>,
        request: ExtractRequest,
    ) -> Result<Timed<Vec<Arc<CachedFeatures>>>> {
        let count = files.len();
        // Only a few files are in flight at a time, because their pixels take much memory.
        let outcomes = stream::iter(files)
            .map(|file| self.extract(file, request))
            .buffered(self.engine().max_concurrent_images());
        let extracted = Timed::collect(outcomes).await;
        let outcomes = extracted.value.into_iter().enumerate();
        let value = outcomes
            .map(|(index, outcome)| outcome.map_err(|error| at_image(error, index, count)))
            .collect::<Result<_>>()?;
        let stages = extracted.stages;
        Ok(Timed { value, stages })
    }

    /// Checks the headers of images, so that most mistakes are an answer to the request.
    pub(super) async fn check_headers(
        &self,
        files: &[Bytes],
        preparation: Preparation,
    ) -> Result<()> {
        let files = files.to_vec();
        let count = files.len();
        if count == 0 {
            return Err(Error::malformed("the request has no images to learn from"));
        }
        let limits = *self.limits();
        let patch = self.engine().spec().architecture.patch;
        let check = move || {
            for (index, file) in files.iter().enumerate() {
                let header = preparation.check(file, patch, &limits);
                header.map_err(|error| at_image(error, index, count))?;
            }
            Ok(())
        };
        self.on_blocking_thread("reading the headers of images", check)
            .await
    }
}
