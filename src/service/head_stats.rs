//! What the attention heads have in common, and what not.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    ImageOptions, Service, Stages,
    images::CachedFeatures,
    maps::{finish, heads, patch_tokens},
};
use crate::{
    engine::RequestedOutputs,
    error::Result,
    features::{attention, head_stats::HeadStats, pca},
    vision::Grid,
};

/// Statistics of the heads of one image.
#[derive(Debug)]
pub struct ImageHeadStats {
    /// Per head and between heads.
    pub stats: HeadStats,
    /// Share of the patches that are foreground, 0 to 1.
    pub foreground_area: f32,
    /// The image's grid.
    pub grid: Grid,
}

impl Service {
    /// Statistics of the heads on each image by itself. The foreground is that of PCA maps.
    ///
    /// # Errors
    /// The first image that cannot be used, by its index.
    pub async fn head_stats(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
    ) -> Result<(Vec<ImageHeadStats>, Stages)> {
        let wanted = RequestedOutputs {
            patch_tokens: true,
            attention: true,
            ..RequestedOutputs::default()
        };
        let seen = self
            .see_for_maps(
                files,
                image.over(&self.engine.spec().map_preprocessing()),
                wanted,
            )
            .await?;
        let registers = self.engine.spec().registers;
        let of_image = move |view: &Arc<CachedFeatures>| {
            let heads = heads(&view.features, registers)?;
            let foreground = pca::foreground_of(
                patch_tokens(&view.features)?,
                &attention::mean(heads).to_vec(),
            )?;
            let inside = foreground.iter().filter(|inside| **inside).count();
            Ok(ImageHeadStats {
                stats: HeadStats::new(heads, &foreground),
                foreground_area: inside as f32 / foreground.len() as f32,
                grid: view.features.grid,
            })
        };
        finish(self, seen, move |views| {
            views.iter().map(of_image).collect()
        })
        .await
    }
}
