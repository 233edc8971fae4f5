//! PCA maps.

use std::sync::Arc;

use bytes::Bytes;
use ndarray::ArrayView2;

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
        attention,
        pca::{self, Basis, Foreground, PcaMaps},
        render::{Colormap, Style},
    },
    gallery::BasisName,
    vision::{Grid, RgbImage},
};

/// Default number of components: one per color channel.
pub const PCA_COMPONENTS: usize = 3;

/// Options of PCA maps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PcaOptions {
    /// Number of components. The default is [`PCA_COMPONENTS`], or all of a basis with fewer.
    pub components: Option<usize>,
    /// Patches that take part.
    pub foreground: Foreground,
    /// Name of a stored basis, in place of one that is fitted on the images.
    pub basis: Option<BasisName>,
}

/// PCA maps of the images of one request, in one joint basis.
#[derive(Debug)]
pub struct PcaAnswer {
    /// The maps.
    pub pca: PcaMaps,
    /// Grid of each image.
    pub grids: Vec<Grid>,
}

impl PcaAnswer {
    fn draw(&self, images: &[Arc<CachedFeatures>], style: Style) -> Vec<RgbImage> {
        let maps = self.pca.maps.iter().zip(images);
        maps.map(|(map, image)| {
            // At most three components are shown; a single one is a shade of gray.
            let shown = map.slice(ndarray::s![.., ..map.ncols().min(3)]);
            let values: Vec<f32> = shown.iter().copied().collect();
            image.draw(&values, shown.ncols(), style, Colormap::Gray)
        })
        .collect()
    }
}

impl Extractor {
    /// Computes PCA maps. `basis` is the stored basis that the options name; without one a joint
    /// basis is fitted on the images.
    pub async fn pca(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
        options: &PcaOptions,
        basis: Option<Basis>,
        format: MapFormat,
    ) -> Result<Timed<Rendered<PcaAnswer>>> {
        let count = self.component_count(options.components, basis.as_ref())?;
        let foreground = options.foreground;
        let max_pixels = self.limits().decode.max_pixels;
        self.compute_maps(files, image, move |images| {
            let tokens: Vec<ArrayView2<'_, f32>> =
                images.iter().map(|image| image.patch_tokens()).collect();
            let attention = match foreground {
                Foreground::Auto => images
                    .iter()
                    .map(|image| attention::mean(image.cls_attention()).to_vec())
                    .collect(),
                Foreground::None => Vec::new(),
            };
            let pca = match &basis {
                Some(basis) => pca::maps_in(basis, &tokens, &attention, count, foreground)?,
                None => pca::maps(&tokens, &attention, count, foreground)?,
            };
            let grids = images.iter().map(|image| image.grid()).collect();
            let answer = PcaAnswer { pca, grids };
            format.render(answer, max_pixels, |answer, style| {
                answer.draw(images, style)
            })
        })
        .await
    }

    /// Returns the number of components. It is checked before the model runs.
    fn component_count(&self, requested: Option<usize>, basis: Option<&Basis>) -> Result<usize> {
        let (max, reason) = match basis {
            Some(basis) => (basis.ranges().len(), ", as many as the basis has"),
            None => (self.engine().spec().architecture.dim, ""),
        };
        let count = requested.unwrap_or(PCA_COMPONENTS.min(max));
        if (1..=max).contains(&count) {
            return Ok(count);
        }
        let range = format_args!("1 to {max}{reason}");
        Err(Error::out_of_range("components", count, range))
    }
}
