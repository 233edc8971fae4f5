//! Multi-crop: which views are made of an image.

use anyhow::bail;
use dinoserve::vision::{PATCH, RgbImage};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::{augment::Augmentation, pixels::normalized};

/// Least and most deviation of the blur, in pixels of views of the default sizes.
const BLUR: [f64; 2] = [0.1, 2.0];

/// Two large views, which the teacher sees, and some small ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CropConfig {
    /// Side of a global view in pixels: whole patches of 14.
    pub global_size: usize,
    /// Least and most share of the image that it shows.
    pub global_scale: [f64; 2],
    /// Side of a local view.
    pub local_size: usize,
    /// Least and most share of the image that it shows.
    pub local_scale: [f64; 2],
    /// Local views of each image; may be 0.
    pub local_count: usize,
    /// Least and most deviation of the blur in pixels of a view. If it is not given: 0.1 to 2 on
    /// views of the default sizes (main_dino.py), and on smaller ones as much less, since of a view
    /// of 28 pixels a deviation of 2 would leave little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur: Option<[f64; 2]>,
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

/// The views of one image, each `[3, side, side]`, normalized.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// Both global ones.
    pub global: [Vec<f32>; 2],
    /// The local ones.
    pub local: Vec<Vec<f32>>,
}

impl CropConfig {
    /// # Errors
    /// That names the key and what would be right.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (key, size) in [
            ("crops.global_size", self.global_size),
            ("crops.local_size", self.local_size),
        ] {
            if size == 0 || !size.is_multiple_of(PATCH) {
                let below = (size / PATCH * PATCH).max(PATCH);
                bail!(
                    "{key} is {size}, which is no whole number of patches of {PATCH}; use {below} or {}",
                    below + PATCH
                );
            }
        }
        for (key, [least, most]) in [
            ("crops.global_scale", self.global_scale),
            ("crops.local_scale", self.local_scale),
        ] {
            if !(least > 0.0 && least <= most && most <= 1.0) {
                bail!(
                    "{key} is {least} to {most}; both must be above 0 and up to 1, the least first"
                );
            }
        }
        match self.blur {
            Some([least, most]) if !(least >= 0.01 && least <= most && most <= 20.0) => {
                bail!(
                    "crops.blur is {least} to {most}; both must be from 0.01 to 20, the least first"
                )
            }
            _ => Ok(()),
        }
    }

    /// How the global views and the local ones are made (blur and solarising as in main_dino.py).
    pub fn augmentations(&self) -> [Augmentation; 3] {
        let usual = Self::default();
        let view = |size: usize, usual: usize, scale: [f64; 2], blur: f64, solarise: f64| {
            let blur_deviation = self
                .blur
                .unwrap_or(BLUR.map(|pixels| pixels * size as f64 / usual as f64))
                .map(|pixels| pixels as f32);
            Augmentation {
                size,
                scale,
                blur,
                blur_deviation,
                solarise,
            }
        };
        let global = |blur, solarise| {
            view(
                self.global_size,
                usual.global_size,
                self.global_scale,
                blur,
                solarise,
            )
        };
        let local = view(
            self.local_size,
            usual.local_size,
            self.local_scale,
            0.5,
            0.0,
        );
        [global(1.0, 0.0), global(0.1, 0.2), local]
    }

    /// The views of an image, which the seed decides.
    pub fn views(&self, image: &RgbImage, seed: u64) -> Views {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let [first, second, local] = self.augmentations();
        let mut view = |augmentation: Augmentation| {
            let mut pixels = Vec::with_capacity(3 * augmentation.size * augmentation.size);
            normalized(&augmentation.apply(image, &mut random), &mut pixels);
            pixels
        };
        Views {
            global: [view(first), view(second)],
            local: (0..self.local_count).map(|_| view(local)).collect(),
        }
    }
}
