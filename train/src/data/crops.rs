//! Multi-crop: the views of an image.

use anyhow::bail;
use dinoserve::{
    model::Architecture,
    vision::{PatchSize, RgbImage},
};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::{Augmentation, append_normalized};

/// Patch size; training supports only that of DINOv2.
const PATCH: PatchSize = Architecture::DINOV2_SMALL.patch;
/// Smallest and largest deviation of the blur, in pixels of views of the default sizes.
const BLUR: [f64; 2] = [0.1, 2.0];

/// Section `crops`: two global views, which the teacher sees, and some local ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CropConfig {
    /// Side of a global view in pixels; a multiple of the patch size, 14.
    pub global_size: usize,
    /// Smallest and largest share of the image's area in a global view.
    pub global_scale: [f64; 2],
    /// Side of a local view in pixels; a multiple of the patch size, 14.
    pub local_size: usize,
    /// Smallest and largest share of the image's area in a local view.
    pub local_scale: [f64; 2],
    /// Number of local views of each image; may be 0.
    pub local_count: usize,
    /// Smallest and largest deviation of the blur, in pixels of a view. The default is 0.1 to 2 on
    /// views of the default sizes (main_dino.py). It shrinks with the views, because a deviation of
    /// 2 pixels would leave little of a view of 28 pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur: Option<[f64; 2]>,
}

/// The views of one image, each `[3, side, side]`, normalized.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// Both global views.
    pub global: [Vec<f32>; 2],
    /// The local views.
    pub local: Vec<Vec<f32>>,
}

impl Default for CropConfig {
    fn default() -> Self {
        Self {
            global_size: 224,
            global_scale: [0.4, 1.0],
            local_size: 98,
            local_scale: [0.05, 0.4],
            local_count: 8,
            blur: None,
        }
    }
}

impl CropConfig {
    /// Returns the side of a global view in patches.
    pub fn global_grid(&self) -> usize {
        self.global_size / PATCH.pixels()
    }

    /// Returns the augmentations of the two global views and of the local ones (blur and
    /// solarization as in main_dino.py).
    pub fn augmentations(&self) -> [Augmentation; 3] {
        let default = Self::default();
        let global = Augmentation {
            size: self.global_size,
            scale: self.global_scale,
            blur: 1.0,
            blur_deviation: self.blur_deviation(self.global_size, default.global_size),
            solarize: 0.0,
        };
        let second = Augmentation {
            blur: 0.1,
            solarize: 0.2,
            ..global
        };
        let local = Augmentation {
            size: self.local_size,
            scale: self.local_scale,
            blur: 0.5,
            blur_deviation: self.blur_deviation(self.local_size, default.local_size),
            solarize: 0.0,
        };
        [global, second, local]
    }

    /// Makes the views of an image; the same seed gives the same views.
    pub fn views(&self, image: &RgbImage, seed: u64) -> Views {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let [first, second, local] = self.augmentations();
        let mut view = |augmentation: Augmentation| {
            let mut pixels = Vec::with_capacity(3 * augmentation.size * augmentation.size);
            append_normalized(&augmentation.apply(image, &mut random), &mut pixels);
            pixels
        };
        Views {
            global: [view(first), view(second)],
            local: (0..self.local_count).map(|_| view(local)).collect(),
        }
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (key, size) in [
            ("crops.global_size", self.global_size),
            ("crops.local_size", self.local_size),
        ] {
            let patch = PATCH.pixels();
            if size == 0 || !size.is_multiple_of(patch) {
                let below = PATCH.round_down(size).max(patch);
                bail!(
                    "{key} is {size}, which is not a multiple of the patch size {patch}; use \
                     {below} or {}",
                    below + patch
                );
            }
        }
        for (key, [min, max]) in [
            ("crops.global_scale", self.global_scale),
            ("crops.local_scale", self.local_scale),
        ] {
            if !(min > 0.0 && min <= max && max <= 1.0) {
                bail!(
                    "{key} is {min} to {max}; both must be above 0 and at most 1, the smaller first"
                );
            }
        }
        match self.blur {
            Some([min, max]) if !(min >= 0.01 && min <= max && max <= 20.0) => bail!(
                "crops.blur is {min} to {max}; both must be from 0.01 to 20, the smaller first"
            ),
            _ => Ok(()),
        }
    }

    /// Returns the smallest and largest deviation of the blur for views of `size` pixels.
    fn blur_deviation(&self, size: usize, default_size: usize) -> [f32; 2] {
        self.blur
            .unwrap_or(BLUR.map(|pixels| pixels * size as f64 / default_size as f64))
            .map(|pixels| pixels as f32)
    }
}
