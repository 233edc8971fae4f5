//! How a segmenter is trained.

use clap::Args;

use crate::{
    features::probe::TrainingOptions,
    service::{GalleryLimits, SegmenterOptions},
};

/// Options of the training of a segmenter.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SegmenterFlags {
    /// Number of last blocks whose patch tokens are joined
    #[arg(long, default_value_t = SegmenterOptions::default().layers)]
    layers: usize,

    /// Strength of the L2 penalty on the weights, C = 1/l2 in scikit-learn's terms [default: 100,
    /// or for 10 images and more that of 1000, 100 and 10 with the best cross-validated accuracy]
    #[arg(long, value_name = "STRENGTH")]
    l2: Option<f64>,

    /// Number of folds of the cross-validation, which hold out whole images; fewer for fewer images
    #[arg(long, value_name = "COUNT", default_value_t = TrainingOptions::default().folds)]
    folds: usize,

    /// Maximum number of patches to learn from; an even sample is taken of more
    #[arg(long, value_name = "COUNT")]
    #[arg(default_value_t = GalleryLimits::default().max_segmenter_patches)]
    max_patches_learned: usize,
}

impl SegmenterFlags {
    pub(in crate::cli) fn max_patches(&self) -> usize {
        self.max_patches_learned
    }

    pub(in crate::cli) fn options(&self) -> SegmenterOptions {
        let defaults = SegmenterOptions::default();
        SegmenterOptions {
            layers: self.layers,
            training: TrainingOptions {
                l2: self.l2,
                folds: self.folds,
                ..defaults.training
            },
        }
    }
}
