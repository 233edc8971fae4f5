//! Attention maps.

use bytes::Bytes;
use ndarray::{Array2, ArrayView1};

use super::{
    cached_features::CachedFeatures,
    extractor::Extractor,
    images::ImageOptions,
    maps::{MapFormat, Rendered, check_share},
    stages::Timed,
};
use crate::{
    error::{Error, Result},
    features::{
        attention::{self, HeadChoice},
        render::{self, Colormap, Style},
    },
    vision::{Grid, RgbImage},
};

/// Options of attention maps.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AttentionOptions {
    /// Heads. The default is the mean for a rendering, and every head for numbers.
    pub head: Option<HeadChoice>,
    /// Share of the attention, 0 to 1. Only the patches with the most attention, which carry this
    /// share, are kept.
    pub threshold: Option<f32>,
    /// Colors of a rendering.
    pub colormap: Colormap,
}

/// Attention maps of one image.
#[derive(Debug)]
pub struct AttentionMaps {
    /// `[maps, patches]`: raw softmax values; those below the threshold are 0.
    pub maps: Array2<f32>,
    /// Grid of the image.
    pub grid: Grid,
}

impl AttentionMaps {
    /// Draws one map, or all heads in a labeled grid. Each map is scaled to its own range.
    fn draw(&self, image: &CachedFeatures, colormap: Colormap, style: Style) -> RgbImage {
        let draw =
            |map: ArrayView1<'_, f32>| image.draw(&attention::min_max(map), 1, style, colormap);
        if self.maps.nrows() == 1 {
            return draw(self.maps.row(0));
        }
        let maps = self.maps.rows().into_iter().enumerate();
        let labeled: Vec<_> = maps
            .map(|(head, map)| (format!("head {head}"), draw(map)))
            .collect();
        render::labeled_grid(&labeled)
    }
}

impl Extractor {
    /// Computes the attention maps of each image.
    pub async fn attention(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: AttentionOptions,
        format: MapFormat,
    ) -> Result<Timed<Rendered<Vec<AttentionMaps>>>> {
        format.check()?;
        if let Some(threshold) = options.threshold {
            check_share("threshold", threshold)?;
        }
        let choice = options.head.unwrap_or(match format {
            MapFormat::Numbers => HeadChoice::All,
            MapFormat::SinglePng(_) | MapFormat::PngPerImage(_) => HeadChoice::Mean,
        });
        let heads = self.engine().spec().architecture.heads;
        if let HeadChoice::One(head) = choice
            && head >= heads
        {
            let last = heads - 1;
            let detail = format_args!("the model has no head {head}; its heads are 0 to {last}");
            return Err(Error::option("head", detail));
        }
        let max_pixels = self.limits().decode.max_pixels;
        self.compute_maps(files, image, move |images| {
            let mut answers = Vec::with_capacity(images.len());
            for image in images {
                let mut maps = attention::choose(image.cls_attention(), choice);
                if let Some(share) = options.threshold {
                    for map in maps.rows_mut() {
                        attention::keep_mass(map, share);
                    }
                }
                let grid = image.grid();
                answers.push(AttentionMaps { maps, grid });
            }
            format.render(answers, max_pixels, |answers, style| {
                let answers = answers.iter().zip(images);
                answers
                    .map(|(answer, image)| answer.draw(image, options.colormap, style))
                    .collect()
            })
        })
        .await
    }
}
