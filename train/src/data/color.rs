//! Color changes of 8-bit images, as in Pillow and torchvision.

use dinoserve::vision::RgbImage;

/// Darkens the image for a factor below 1, and brightens it above.
pub fn brightness(image: &mut RgbImage, factor: f32) {
    each_pixel(image, |pixel| pixel.map(|value| blend(0, value, factor)));
}

/// Moves pixels toward the mean gray for a factor below 1, and away from it above.
pub fn contrast(image: &mut RgbImage, factor: f32) {
    let count = f64::from(image.width()) * f64::from(image.height());
    let sum: f64 = image.pixels().map(|pixel| f64::from(luma(pixel.0))).sum();
    let mean = (sum / count + 0.5) as u8;
    each_pixel(image, |pixel| pixel.map(|value| blend(mean, value, factor)));
}

/// Makes the image grayer for a factor below 1, and more colorful above; 0 gives gray.
pub fn saturation(image: &mut RgbImage, factor: f32) {
    each_pixel(image, |pixel| {
        let gray = luma(pixel);
        pixel.map(|value| blend(gray, value, factor))
    });
}

/// Rotates the hue by `shift` of a full circle, −0.5 to 0.5, in Pillow's 8-bit HSV.
pub fn hue(image: &mut RgbImage, shift: f32) {
    // Truncates toward zero and wraps around, as NumPy's `uint8(shift · 255)`.
    let shift = (shift * 255.0) as i32 as u8;
    each_pixel(image, |pixel| {
        let [h, s, v] = to_hsv(pixel);
        to_rgb([h.wrapping_add(shift), s, v])
    });
}

/// Inverts the values from 128 on.
pub fn solarize(image: &mut RgbImage) {
    each_pixel(image, |pixel| {
        pixel.map(|value| if value < 128 { value } else { 255 - value })
    });
}

/// Computes ITU-R 601 luma in fixed point, as Pillow's `convert("L")`.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// Blends `a` (factor 0) and `b` (factor 1), clipped; other factors extrapolate (Pillow's
/// `Image.blend`).
fn blend(a: u8, b: u8, factor: f32) -> u8 {
    (f32::from(a) + factor * (f32::from(b) - f32::from(a))).clamp(0.0, 255.0) as u8
}

fn each_pixel(image: &mut RgbImage, change: impl Fn([u8; 3]) -> [u8; 3]) {
    image
        .pixels_mut()
        .for_each(|pixel| pixel.0 = change(pixel.0));
}

fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let max = r.max(g).max(b);
    let min = r.min(g).min(b);
    if max == min {
        return [0, 0, max];
    }
    let range = f32::from(max - min);
    let [dr, dg, db] = [r, g, b].map(|value| f32::from(max - value) / range);
    let h = if r == max {
        db - dg
    } else if g == max {
        2.0 + dr - db
    } else {
        4.0 + dg - dr
    };
    let h = (h / 6.0 + 1.0).fract();
    let s = range / f32::from(max);
    [(h * 255.0) as u8, (s * 255.0) as u8, max]
}

fn to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let h = f32::from(h) * 6.0 / 255.0;
    let s = f32::from(s) / 255.0;
    let sector = h.floor();
    let f = h - sector;
    let [p, q, t] = [1.0 - s, 1.0 - s * f, 1.0 - s * (1.0 - f)]
        .map(|x| (f32::from(v) * x).round().clamp(0.0, 255.0) as u8);
    match sector as u32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}
