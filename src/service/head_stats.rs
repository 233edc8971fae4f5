//! Statistics of attention heads.

use bytes::Bytes;

use super::{extractor::Extractor, images::ImageOptions, stages::Timed};
use crate::{
    error::Result,
    features::{attention, head_stats::HeadStats, pca},
    vision::Grid,
};

/// Statistics of the heads for one image.
#[derive(Debug)]
pub struct ImageHeadStats {
    /// Statistics per head and between heads.
    pub stats: HeadStats,
    /// Share of the patches that are foreground, 0 to 1.
    pub foreground_area: f32,
    /// Grid of the image.
    pub grid: Grid,
}

impl Extractor {
    /// Computes statistics of the heads for each image on its own. The foreground is that of PCA
    /// maps.
    pub async fn head_stats(
        &self,
        files: Vec<Bytes>,
        image: &ImageOptions,
    ) -> Result<Timed<Vec<ImageHeadStats>>> {
        self.compute_maps(files, image, |images| {
            let mut stats = Vec::with_capacity(images.len());
            for image in images {
                let heads = image.cls_attention();
                let mean = attention::mean(heads).to_vec();
                let foreground = pca::foreground_of(image.patch_tokens(), &mean)?;
                let inside = foreground.iter().filter(|inside| **inside).count();
                stats.push(ImageHeadStats {
                    stats: HeadStats::new(heads, &foreground),
                    foreground_area: inside as f32 / foreground.len() as f32,
                    grid: image.grid(),
                });
            }
            Ok(stats)
        })
        .await
    }
}
