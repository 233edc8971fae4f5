//! Features of an image, as the cache keeps them.

use ndarray::{Array2, Array3, ArrayView2};

use crate::{
    engine::Features,
    features::{
        attention,
        render::{self, Colormap, Style},
    },
    vision::{Grid, RgbImage},
};

/// Features of an image, and the image itself if it was requested.
#[derive(Debug, Clone)]
pub(super) struct CachedFeatures {
    pub(super) features: Features,
    pub(super) image: Option<RgbImage>,
    pub(super) is_dim: bool,
}

/// The accessors panic if the request did not include what they return.
impl CachedFeatures {
    /// Returns the grid of the patches.
    pub(super) fn grid(&self) -> Grid {
        self.features.grid
    }

    /// Returns the patch tokens of the last block, `[patches, dim]`.
    pub(super) fn patch_tokens(&self) -> ArrayView2<'_, f32> {
        let tokens = self.features.patch_tokens.as_ref();
        tokens.expect("requested in `outputs`").view()
    }

    /// Returns the attention of CLS over the patches, `[heads, patches]`.
    pub(super) fn cls_attention(&self) -> ArrayView2<'_, f32> {
        let rows = self.features.attention.as_ref();
        let rows = rows.expect("requested in `outputs`").view();
        let registers = rows.ncols() - 1 - self.grid().patches();
        attention::patch_columns(rows, registers)
    }

    /// Returns the image as the model got it.
    pub(super) fn image(&self) -> &RgbImage {
        self.image.as_ref().expect("requested by `with_image`")
    }

    /// Draws `values`, `[patches, channels]`, on the image or in its place.
    pub(super) fn draw(
        &self,
        values: &[f32],
        channels: usize,
        style: Style,
        colormap: Colormap,
    ) -> RgbImage {
        let grid = self.grid();
        render::draw(values, channels, grid, self.image(), style, colormap)
    }

    /// Returns the memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let of = &self.features;
        let matrices = [
            &of.patch_tokens,
            &of.registers,
            &of.attention,
            &of.layers_cls,
        ];
        let matrices = matrices.into_iter().flatten().map(Array2::len);
        let layers_patch = of.layers_patch.as_ref().map_or(0, Array3::len);
        let values = of.cls.len() + matrices.sum::<usize>() + layers_patch;
        let image = self.image.as_ref().map_or(0, |image| image.as_raw().len());
        // The key and the cache's bookkeeping take about as much as a small vector.
        size_of::<Self>() + 512 + values * size_of::<f32>() + image
    }
}
