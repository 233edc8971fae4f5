//! The augmentations of main_dino.py, drawn from a seed.

use dinoserve::vision::{ResampleFilter, RgbImage, Window, resample_rgb};
use image::imageops;
use rand::{RngExt, rngs::ChaCha8Rng, seq::SliceRandom};

use super::color::{brightness, contrast, hue, saturation, solarise};

/// Width over height of what is cut out, least and most (torchvision's `RandomResizedCrop`).
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
const TRIES: usize = 10;
const FLIP: f64 = 0.5;
const JITTER: f64 = 0.8;
const GREY: f64 = 0.2;
/// How much brightness, contrast and saturation may differ from 1, and the hue from 0.
const JITTER_RANGES: [f32; 4] = [0.4, 0.4, 0.2, 0.1];
/// How one view is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Side of the view.
    pub size: usize,
    /// Least and most share of the image's area that it shows.
    pub scale: [f64; 2],
    /// How often it is blurred.
    pub blur: f64,
    /// Least and most deviation of the blur, in pixels of the view.
    pub blur_deviation: [f32; 2],
    /// How often it is solarised.
    pub solarise: f64,
}

impl Augmentation {
    /// A view of an image, `size`×`size`.
    pub fn apply(&self, image: &RgbImage, random: &mut ChaCha8Rng) -> RgbImage {
        let window = self.window(image.width(), image.height(), random);
        let part = imageops::crop_imm(
            image,
            window.x as u32,
            window.y as u32,
            window.width as u32,
            window.height as u32,
        );
        let whole = Window {
            x: 0,
            y: 0,
            width: self.size,
            height: self.size,
        };
        let mut view = resample_rgb(
            &part.to_image(),
            (self.size, self.size),
            ResampleFilter::Bicubic,
            whole,
        );
        if random.random_bool(FLIP) {
            imageops::flip_horizontal_in_place(&mut view);
        }
        if random.random_bool(JITTER) {
            jitter(&mut view, random);
        }
        if random.random_bool(GREY) {
            saturation(&mut view, 0.0);
        }
        if random.random_bool(self.blur) {
            let [least, most] = self.blur_deviation;
            view = blurred(&view, random.random_range(least..=most));
        }
        if random.random_bool(self.solarise) {
            solarise(&mut view);
        }
        view
    }

    /// What is cut out: of an area and a form by chance, or what fits in the middle if none fits.
    fn window(&self, width: u32, height: u32, random: &mut ChaCha8Rng) -> Window {
        let (width, height) = (width as usize, height as usize);
        let area = (width * height) as f64;
        for _ in 0..TRIES {
            let wanted = area * random.random_range(self.scale[0]..=self.scale[1]);
            let ratio = random.random_range(RATIO[0].ln()..=RATIO[1].ln()).exp();
            let (w, h) = (
                (wanted * ratio).sqrt().round() as usize,
                (wanted / ratio).sqrt().round() as usize,
            );
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (x, y) = (
                    random.random_range(0..=width - w),
                    random.random_range(0..=height - h),
                );
                return Window {
                    x,
                    y,
                    width: w,
                    height: h,
                };
            }
        }
        let ratio = width as f64 / height as f64;
        let (w, h) = if ratio < RATIO[0] {
            (
                width,
                ((width as f64 / RATIO[0]).round() as usize).min(height),
            )
        } else if ratio > RATIO[1] {
            (
                ((height as f64 * RATIO[1]).round() as usize).min(width),
                height,
            )
        } else {
            (width, height)
        };
        Window {
            x: (width - w) / 2,
            y: (height - h) / 2,
            width: w,
            height: h,
        }
    }
}

/// A Gaussian blur of this deviation, in pixels. Blurs by boxes will not do: whole boxes have a
/// least deviation of 1.4 pixels.
pub fn blurred(view: &RgbImage, deviation: f32) -> RgbImage {
    // No level changes by as little, and image 0.25 moves the whole view by a pixel where a weight
    // is too small to be a number.
    if deviation < 0.25 {
        view.clone()
    } else {
        imageops::blur(view, deviation)
    }
}

/// Brightness, contrast, saturation and hue, in an order by chance.
fn jitter(view: &mut RgbImage, random: &mut ChaCha8Rng) {
    let mut order = [0, 1, 2, 3];
    order.shuffle(random);
    for kind in order {
        let by = random.random_range(-JITTER_RANGES[kind]..=JITTER_RANGES[kind]);
        match kind {
            0 => brightness(view, 1.0 + by),
            1 => contrast(view, 1.0 + by),
            2 => saturation(view, 1.0 + by),
            _ => hue(view, by),
        }
    }
}
