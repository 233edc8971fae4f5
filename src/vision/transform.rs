//! Which pixels of an image the model sees: torchvision's transforms on PIL images, in integer
//! arithmetic.

use image::metadata::Orientation;

use super::{
    Decoded, Grid, PatchSize, ResampleFilter, RgbImage, Size, Window,
    resample::{reads_turned, resample_turned},
    resample_rgb,
};
use crate::{
    error::{Error, Kind, Result},
    names::option_enum,
};

option_enum! {
    /// Way to bring an image to the model's grid.
    pub enum ResizeMode {
        /// Resizes the shorter side to `size`·256/224 and keeps the middle `size`×`size`: DINOv2's
        /// evaluation transform.
        Crop,
        /// Resizes the shorter side to `size`, keeping the aspect ratio, and crops each side to a
        /// whole number of patches.
        Fit,
        /// Resizes both sides to `size`; the aspect ratio is lost.
        Squash,
    }
}

/// All settings that decide which pixels of a decoded image the model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transform {
    /// Way to bring the image to the grid.
    pub mode: ResizeMode,
    /// Size that `mode` refers to, in pixels.
    pub size: usize,
    /// Resampling filter.
    pub filter: ResampleFilter,
    /// Patch size of the model.
    pub patch: PatchSize,
    /// Maximum number of patches of an image.
    pub max_patches: usize,
    /// Whether `size` shrinks to the largest that fits for an image whose grid would have more than
    /// `max_patches` patches.
    pub shrinks: bool,
}

/// Result of applying a [`Transform`] to an image size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizePlan {
    /// Size after resizing.
    pub resized: Size,
    /// Part of the resized image that the model sees.
    pub window: Window,
    /// Grid of that part.
    pub grid: Grid,
}

impl Transform {
    /// Plans the transform of an image of size `image`, with a smaller `size` if this one's grid
    /// has too many patches and the transform shrinks.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] if `size` is below one patch, or no multiple of the patch where it
    /// must be; [`Kind::LimitExceeded`] if the grid would have more than `max_patches` patches.
    pub fn plan(&self, image: Size) -> Result<ResizePlan> {
        match self.shrinks {
            true => self.shrunk_to_fit(image).plan_exactly(image),
            false => self.plan_exactly(image),
        }
    }

    fn plan_exactly(&self, image: Size) -> Result<ResizePlan> {
        self.check_size()?;
        let (resized, kept) = self.lay_out(self.size, image);
        let grid = self.patch.grid(kept);
        if grid.patches() > self.max_patches {
            return Err(self.too_many_patches(image, grid));
        }
        let window = Window {
            x: half_to_even(resized.width - kept.width),
            y: half_to_even(resized.height - kept.height),
            width: kept.width,
            height: kept.height,
        };
        Ok(ResizePlan {
            resized,
            window,
            grid,
        })
    }

    /// Applies the transform: returns `[grid.height·patch, grid.width·patch]` RGB pixels.
    pub fn apply(&self, image: &RgbImage) -> Result<(RgbImage, Grid)> {
        let plan = self.plan(Size::of(image))?;
        let pixels = resample_rgb(image, plan.resized, self.filter, plan.window);
        Ok((pixels, plan.grid))
    }

    /// Applies the transform to an image that may have been decoded at reduced size.
    pub fn apply_to_decoded(&self, decoded: &Decoded) -> Result<(RgbImage, Grid)> {
        let plan = self.plan(decoded.full_size)?;
        let Decoded {
            image, orientation, ..
        } = decoded;
        let pixels = resample_turned(image, *orientation, plan.resized, self.filter, plan.window);
        Ok((pixels, plan.grid))
    }

    /// Returns the memory that [`Self::apply_to_decoded`] takes for an image of an upright size,
    /// in bytes.
    pub(super) fn resizing_bytes(&self, upright: Size, orientation: Orientation) -> u64 {
        let Ok(plan) = self.plan(upright) else {
            return 0;
        };
        let narrow = Size::new(plan.window.width, upright.height).pixels();
        let low = Size::new(upright.width, plan.window.height).pixels();
        let copy = match reads_turned(orientation, upright, plan.resized) {
            true => 0,
            false => upright.pixels(),
        };
        3 * (narrow.max(low) + copy)
    }

    /// Returns the transform with the largest `size` that fits an image of size `image`, if this
    /// one's grid has too many patches. Returns it unchanged if it fits, or if no size does.
    fn shrunk_to_fit(self, image: Size) -> Self {
        let (_, kept) = self.lay_out(self.size, image);
        if self.patch.grid(kept).patches() <= self.max_patches {
            return self;
        }
        let size = self.largest_size(image).unwrap_or(self.size);
        Self { size, ..self }
    }

    fn check_size(&self) -> Result<()> {
        let size = self.size;
        let patch = self.patch.pixels();
        let wrong = |detail| Err(Error::option("size", detail));
        if size < patch {
            return wrong(format!("{size} is below one patch of {patch} pixels"));
        }
        if size / patch > self.max_patches {
            // Not even a strip of one patch's width would fit; larger numbers would overflow later.
            let largest = self.max_patches.saturating_mul(patch);
            let range = format_args!("{patch} to {largest}");
            return Err(Error::out_of_range("size", size, range));
        }
        if self.mode != ResizeMode::Fit && !size.is_multiple_of(patch) {
            let below = self.patch.round_down(size);
            return wrong(format!(
                "{size} is not a multiple of the patch size {patch}; use {below} or {}",
                below + patch
            ));
        }
        Ok(())
    }

    /// Returns the size of the resized image, and the size of the part that is kept of it.
    fn lay_out(&self, size: usize, image: Size) -> (Size, Size) {
        match self.mode {
            ResizeMode::Squash => (Size::square(size), Size::square(size)),
            ResizeMode::Crop => (shorter_side(image, size * 256 / 224), Size::square(size)),
            ResizeMode::Fit => {
                let resized = shorter_side(image, size);
                (resized, self.patch.grid(resized).pixels(self.patch))
            }
        }
    }

    /// Returns the largest `size` in whole patches, at most the transform's own, whose grid fits.
    fn largest_size(&self, image: Size) -> Option<usize> {
        let patch = self.patch.pixels();
        // The shorter side of a grid that fits is at most the root of the limit.
        let most = self.max_patches.isqrt().min(self.size / patch);
        let sizes = (1..=most).rev().map(|patches| patches * patch);
        sizes.into_iter().find(|&size| {
            let (_, kept) = self.lay_out(size, image);
            self.patch.grid(kept).patches() <= self.max_patches
        })
    }

    fn too_many_patches(&self, image: Size, grid: Grid) -> Error {
        let advice = match self.largest_size(image) {
            Some(size) => format!("the largest `size` that fits this image is {size}"),
            None => {
                "no `size` fits an image this long; use resize=crop or resize=squash".to_owned()
            }
        };
        let detail = format!(
            "size {} gives a grid of {}×{} = {} patches (width × height), more than the limit of \
             {}; {advice}",
            self.size,
            grid.width,
            grid.height,
            grid.patches(),
            self.max_patches
        );
        Error::new(Kind::LimitExceeded, detail).with_limit(
            "max_patches",
            self.max_patches as u64,
            "--max-patches",
        )
    }
}

/// Returns the size after torchvision's `Resize(side)`, which truncates the long side instead of
/// rounding it.
fn shorter_side(Size { width, height }: Size, side: usize) -> Size {
    if width <= height {
        Size::new(side, side * height / width)
    } else {
        Size::new(side * width / height, side)
    }
}

/// Computes Python's `int(round(difference / 2))`, which rounds halves to the even number.
fn half_to_even(difference: usize) -> usize {
    let half = difference / 2;
    if difference % 2 == 1 && half % 2 == 1 {
        half + 1
    } else {
        half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_the_even_number_as_in_python() {
        let rounded: Vec<usize> = (0..10).map(half_to_even).collect();
        assert_eq!(rounded, [0, 0, 1, 2, 2, 2, 3, 4, 4, 4]);
    }

    #[test]
    fn the_long_side_is_truncated_as_in_torchvision() {
        for (width, height, side, expected) in [
            (640, 427, 256, (383, 256)),
            (427, 640, 256, (256, 383)),
            (500, 500, 224, (224, 224)),
            (3, 1000, 14, (14, 4666)),
        ] {
            let Size { width, height } = shorter_side(Size { width, height }, side);
            assert_eq!((width, height), expected);
        }
    }

    #[test]
    fn a_size_that_does_not_fit_shrinks_to_the_largest_that_does() {
        let transform = |mode, max_patches| Transform {
            mode,
            size: 518,
            filter: ResampleFilter::Bicubic,
            patch: PatchSize::new(14),
            max_patches,
            shrinks: true,
        };
        use ResizeMode::{Crop, Fit, Squash};
        for (mode, max_patches, image, size, grid) in [
            (Fit, 4096, (1000, 800), 518, Some((37, 46))),
            // 14 of 292 patches are 4088; 15 of 313 would be 4695.
            (Fit, 4096, (20_880, 1000), 196, Some((14, 292))),
            (Fit, 4096, (1000, 20_880), 196, Some((292, 14))),
            (Fit, 4096, (100_000, 20), 518, None),
            (Squash, 100, (1000, 800), 140, Some((10, 10))),
            (Crop, 99, (1000, 800), 126, Some((9, 9))),
        ] {
            let image = Size::new(image.0, image.1);
            let transform = transform(mode, max_patches);
            let shrunk = transform.shrunk_to_fit(image);
            assert_eq!(shrunk.size, size, "{mode} {image:?}");
            let plan = transform.plan(image).ok();
            let found = plan.map(|plan| (plan.grid.height, plan.grid.width));
            assert_eq!(found, grid, "{mode} {image:?}");
        }
    }

    #[test]
    fn resizing_a_turned_image_that_shrinks_counts_its_copy() {
        let transform = |shrinks| Transform {
            mode: ResizeMode::Fit,
            size: 518,
            filter: ResampleFilter::Bicubic,
            patch: PatchSize::new(14),
            max_patches: 1024,
            shrinks,
        };
        let upright = Size::new(140, 5600);
        let bytes = |shrinks, orientation| transform(shrinks).resizing_bytes(upright, orientation);
        // The image becomes 70×2800, by a pass over columns first, which needs a turned copy.
        let pass = 70 * 5600;
        assert_eq!(bytes(true, Orientation::NoTransforms), 3 * pass);
        assert_eq!(bytes(true, Orientation::Rotate90), 3 * (pass + 140 * 5600));
        // Without shrinking the transform fails, and takes nothing.
        assert_eq!(bytes(false, Orientation::Rotate90), 0);
    }

    #[test]
    fn a_fitted_image_is_cropped_to_whole_patches() {
        for (patch, grid, window) in [
            (14, (16, 23), (4, 0, 322, 224)),
            (16, (14, 20), (5, 0, 320, 224)),
        ] {
            let transform = Transform {
                mode: ResizeMode::Fit,
                size: 224,
                filter: ResampleFilter::Bicubic,
                patch: PatchSize::new(patch),
                max_patches: 1000,
                shrinks: false,
            };
            let image = Size {
                width: 590,
                height: 400,
            };
            let plan = transform.plan(image).expect("a grid below the limit");
            let Window {
                x,
                y,
                width,
                height,
            } = plan.window;
            assert_eq!((plan.grid.height, plan.grid.width), grid, "patch {patch}");
            assert_eq!((x, y, width, height), window, "patch {patch}");
        }
    }
}
