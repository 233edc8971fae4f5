//! The augmentations of main_dino.py, drawn from a seed.

use dinoserve::vision::{ResampleFilter, RgbImage, Size, Window, resample_rgb};
use image::imageops;
use rand::{RngExt, rngs::ChaCha8Rng, seq::SliceRandom};

use super::color::{brightness, contrast, hue, saturation, solarize};

/// Smallest and largest aspect ratio, width over height, of the crop (torchvision's
/// `RandomResizedCrop`).
const ASPECT: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// Number of random crops that are tried before the center crop.
const TRIES: usize = 10;
/// Probability of a horizontal flip.
const FLIP: f64 = 0.5;
/// Probability of color jitter.
const JITTER: f64 = 0.8;
/// Probability of a gray view.
const GRAY: f64 = 0.2;
/// Largest change of brightness, contrast and saturation, each from 1, and of the hue, from 0.
const JITTER_RANGES: [f32; 4] = [0.4, 0.4, 0.2, 0.1];

/// Random augmentation of one view.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Side of the view in pixels.
    pub size: usize,
    /// Smallest and largest share of the image's area in the view.
    pub scale: [f64; 2],
    /// Probability of a blur.
    pub blur: f64,
    /// Smallest and largest deviation of the blur, in pixels of the view.
    pub blur_deviation: [f32; 2],
    /// Probability of solarization.
    pub solarize: f64,
}

impl Augmentation {
    /// Makes a view of an image, `size`×`size`.
    pub fn apply(&self, image: &RgbImage, random: &mut ChaCha8Rng) -> RgbImage {
        let window = self.window(image.width(), image.height(), random);
        let part = imageops::crop_imm(
            image,
            window.x as u32,
            window.y as u32,
            window.width as u32,
            window.height as u32,
        );
        let size = Size::square(self.size);
        let mut view = resample_rgb(
            &part.to_image(),
            size,
            ResampleFilter::Bicubic,
            Window::whole(size),
        );
        if random.random_bool(FLIP) {
            imageops::flip_horizontal_in_place(&mut view);
        }
        if random.random_bool(JITTER) {
            jitter(&mut view, random);
        }
        if random.random_bool(GRAY) {
            saturation(&mut view, 0.0);
        }
        if random.random_bool(self.blur) {
            let [min, max] = self.blur_deviation;
            view = blur(&view, random.random_range(min..=max));
        }
        if random.random_bool(self.solarize) {
            solarize(&mut view);
        }
        view
    }

    /// Draws the part of the image that is cut out: a random area and aspect ratio, or the largest
    /// allowed center crop if no random one fits.
    fn window(&self, width: u32, height: u32, random: &mut ChaCha8Rng) -> Window {
        let (width, height) = (width as usize, height as usize);
        let area = (width * height) as f64;
        for _ in 0..TRIES {
            let crop_area = area * random.random_range(self.scale[0]..=self.scale[1]);
            let aspect = random.random_range(ASPECT[0].ln()..=ASPECT[1].ln()).exp();
            let w = (crop_area * aspect).sqrt().round() as usize;
            let h = (crop_area / aspect).sqrt().round() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                return Window {
                    x: random.random_range(0..=width - w),
                    y: random.random_range(0..=height - h),
                    width: w,
                    height: h,
                };
            }
        }
        let aspect = width as f64 / height as f64;
        let mut w = width;
        let mut h = height;
        if aspect < ASPECT[0] {
            h = ((width as f64 / ASPECT[0]).round() as usize).min(height);
        } else if aspect > ASPECT[1] {
            w = ((height as f64 * ASPECT[1]).round() as usize).min(width);
        }
        Window {
            x: (width - w) / 2,
            y: (height - h) / 2,
            width: w,
            height: h,
        }
    }
}

/// Applies a Gaussian blur with a standard deviation in pixels. Box blurs do not suffice: with
/// whole boxes, the smallest deviation is 1.4 pixels.
pub fn blur(view: &RgbImage, deviation: f32) -> RgbImage {
    // So small a blur changes no level, and image 0.25 shifts the whole view by a pixel where a
    // weight underflows.
    if deviation < 0.25 {
        view.clone()
    } else {
        imageops::blur(view, deviation)
    }
}

/// Changes brightness, contrast, saturation and hue, in a random order.
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
