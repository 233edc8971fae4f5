//! Which pixels of a photograph the model sees: torchvision's transforms on PIL images, as plans of
//! whole numbers.

use super::{ResampleFilter, RgbImage, Window, resample_rgb};
use crate::error::{Error, Kind, Result};

/// Side of a patch in pixels. Every DINOv2 has 14.
pub const PATCH: usize = 14;

/// Mean of pixels of 0..1 by channel that every DINOv2 was trained with (ImageNet's); it is taken
/// off.
pub const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Their deviation, by which the rest is divided.
pub const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// How many patches high and wide an image is for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Patches from top to bottom.
    pub height: usize,
    /// Patches from left to right.
    pub width: usize,
}

impl Grid {
    /// Number of patches.
    pub fn patches(self) -> usize {
        self.height * self.width
    }

    /// Height and width in pixels.
    pub fn pixels(self) -> (usize, usize) {
        (self.height * PATCH, self.width * PATCH)
    }
}

/// How a photograph is brought to the model's grid.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ResizeMode {
    /// Shorter side to `size`·256/224, then the middle `size`×`size`: DINOv2's evaluation
    /// transform.
    Crop,
    /// Shorter side to `size`, aspect kept, then each side cropped down to a whole number of
    /// patches.
    Fit,
    /// Both sides to `size`; the aspect is lost.
    Squash,
}

/// A complete description of the way from a decoded photograph to pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transform {
    /// The way to bring it to the grid.
    pub mode: ResizeMode,
    /// The size that the mode speaks of, in pixels.
    pub size: usize,
    /// The resampling filter.
    pub filter: ResampleFilter,
    /// Most patches that an image may have.
    pub max_patches: usize,
}

/// What a [`Transform`] does to an image of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizePlan {
    /// Width and height after resizing.
    pub resized: (usize, usize),
    /// The part of that which the model sees.
    pub window: Window,
    /// Its grid.
    pub grid: Grid,
}

impl Transform {
    /// Plans the transform of an image of `width`×`height`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] if `size` is no multiple of the patch where it must be, or below one
    /// patch; [`Kind::LimitExceeded`] if the grid would have more than `max_patches` patches.
    pub fn plan(&self, width: usize, height: usize) -> Result<ResizePlan> {
        let size = self.size;
        if size < PATCH {
            return Err(Error::option(
                "size",
                format!("{size} is below one patch of {PATCH} pixels"),
            ));
        }
        if size / PATCH > self.max_patches {
            // Not even a strip of one patch's width would fit; larger numbers would overflow below.
            let largest = self.max_patches.saturating_mul(PATCH);
            return Err(Error::option(
                "size",
                format!("{size} is out of range; it must be {PATCH} to {largest}"),
            ));
        }
        if self.mode != ResizeMode::Fit && !size.is_multiple_of(PATCH) {
            let below = size / PATCH * PATCH;
            return Err(Error::option(
                "size",
                format!(
                    "{size} is not a multiple of the patch size {PATCH}; use {below} or {}",
                    below + PATCH
                ),
            ));
        }
        let (resized, target) = self.lay_out(size, width, height);
        let grid = Grid {
            height: target.1 / PATCH,
            width: target.0 / PATCH,
        };
        if grid.patches() > self.max_patches {
            return Err(self.too_many_patches(width, height, grid));
        }
        let window = Window {
            x: half_to_even(resized.0 - target.0),
            y: half_to_even(resized.1 - target.1),
            width: target.0,
            height: target.1,
        };
        Ok(ResizePlan {
            resized,
            window,
            grid,
        })
    }

    /// Width and height of the resized image, and of the part of it that the model sees.
    fn lay_out(
        &self,
        size: usize,
        width: usize,
        height: usize,
    ) -> ((usize, usize), (usize, usize)) {
        match self.mode {
            ResizeMode::Squash => ((size, size), (size, size)),
            ResizeMode::Crop => (shorter_side(width, height, size * 256 / 224), (size, size)),
            ResizeMode::Fit => {
                let resized = shorter_side(width, height, size);
                (
                    resized,
                    (resized.0 / PATCH * PATCH, resized.1 / PATCH * PATCH),
                )
            }
        }
    }

    /// Applies the transform: `[grid.height·14, grid.width·14]` RGB pixels.
    ///
    /// # Errors
    /// As [`Transform::plan`].
    pub fn apply(&self, image: &RgbImage) -> Result<(RgbImage, Grid)> {
        self.apply_to_reduced(image, (image.width() as usize, image.height() as usize))
    }

    /// Applies what is planned for an image of `whole` width and height to a smaller version of it.
    ///
    /// # Errors
    /// As [`Transform::plan`].
    pub fn apply_to_reduced(
        &self,
        image: &RgbImage,
        whole: (usize, usize),
    ) -> Result<(RgbImage, Grid)> {
        let plan = self.plan(whole.0, whole.1)?;
        Ok((
            resample_rgb(image, plan.resized, self.filter, plan.window),
            plan.grid,
        ))
    }

    fn too_many_patches(&self, width: usize, height: usize, grid: Grid) -> Error {
        let fits = |&size: &usize| {
            let (_, target) = self.lay_out(size, width, height);
            (target.0 / PATCH) * (target.1 / PATCH) <= self.max_patches
        };
        // The shorter side of a grid that fits is at most the root of the limit.
        let most = self.max_patches.isqrt().min(self.size / PATCH);
        let largest = (1..=most).rev().map(|patches| patches * PATCH).find(fits);
        let advice = match largest {
            Some(size) => format!("the largest `size` that fits this image is {size}"),
            None => {
                "no `size` fits an image this long; use resize=crop or resize=squash".to_owned()
            }
        };
        Error::new(
            Kind::LimitExceeded,
            format!(
                "size {} gives a grid of {}×{} = {} patches, more than the limit of {}; {advice}",
                self.size,
                grid.height,
                grid.width,
                grid.patches(),
                self.max_patches
            ),
        )
        .with_limit("max_patches", self.max_patches as u64, "--max-patches")
    }
}

/// torchvision's `Resize(side)`: the long side is truncated, not rounded.
fn shorter_side(width: usize, height: usize, side: usize) -> (usize, usize) {
    if width <= height {
        (side, side * height / width)
    } else {
        (side * width / height, side)
    }
}

/// Python's `int(round(difference / 2))`, which rounds halves to the even number.
fn half_to_even(difference: usize) -> usize {
    let half = difference / 2;
    if difference % 2 == 1 && half % 2 == 1 {
        half + 1
    } else {
        half
    }
}
