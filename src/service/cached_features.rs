//! Features of an image, as the cache keeps them.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};

use crate::{
    engine::Features,
    features::{
        attention,
        render::{self, Colormap, Style},
    },
    vision::{Grid, Placement, RgbImage},
};

/// Features of an image, and the image itself if it was requested.
#[derive(Debug, Clone)]
pub(super) struct CachedFeatures {
    pub(super) features: Features,
    pub(super) image: Option<RgbImage>,
    pub(super) placement: Placement,
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

    /// Returns the patch tokens of the first of the last blocks, `[patches, dim]`.
    pub(super) fn first_layer(&self) -> ArrayView2<'_, f32> {
        self.layers().index_axis_move(Axis(0), 0)
    }

    /// Returns the patch tokens of the last block, `[patches, dim]`, where those of several blocks
    /// were requested.
    pub(super) fn last_layer(&self) -> ArrayView2<'_, f32> {
        let layers = self.layers();
        let last = layers.len_of(Axis(0)) - 1;
        layers.index_axis_move(Axis(0), last)
    }

    /// Returns the patch tokens of the last blocks, `[layers, patches, dim]`.
    pub(super) fn layers(&self) -> ArrayView3<'_, f32> {
        let layers = self.features.layers_patch.as_ref();
        layers.expect("requested in `outputs`").view()
    }

    /// Returns the attention of CLS over the patches, `[heads, patches]`.
    pub(super) fn cls_attention(&self) -> ArrayView2<'_, f32> {
        let rows = self.features.attention.as_ref();
        let rows = rows.expect("requested in `outputs`").view();
        let registers = rows.ncols() - 1 - self.grid().patches();
        attention::patch_columns(rows, registers)
    }

    /// Returns the side of a patch, in pixels of the model's input.
    pub(super) fn patch_side(&self) -> f64 {
        self.placement.window.width as f64 / self.grid().width as f64
    }

    /// Returns the center of a patch in the model's input, moved by a part of a patch.
    pub(super) fn center_of(&self, index: usize, [across, down]: [f64; 2]) -> [f64; 2] {
        let width = self.grid().width;
        [
            ((index % width) as f64 + 0.5 + across) * self.patch_side(),
            ((index / width) as f64 + 0.5 + down) * self.patch_side(),
        ]
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
