//! Two images side by side, with lines between points that match.

use tiny_skia::{FillRule, IntSize, LineCap, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};

use super::{sheet::GAP, strip};
use crate::{
    error::{Error, Result},
    vision::RgbImage,
};

/// A match, in pixels of both images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Point of the first image.
    pub from: [f32; 2],
    /// Point of the second image.
    pub to: [f32; 2],
    /// Whether it is an outlier, which is a gray dot in both images.
    pub is_outlier: bool,
}

/// Cells of the first image, across and down, of which each has at most one line. All matches have
/// dots.
const CELLS: usize = 8;

/// Places two images side by side and joins their matches by lines. The color says where in the
/// first image a match begins: its hue changes from left to right, its lightness from top to
/// bottom. The best matches come first in `lines`. Fails as [`strip`] does.
pub fn joined_by_lines(
    left: &RgbImage,
    right: &RgbImage,
    lines: &[Line],
    max_pixels: u64,
) -> Result<RgbImage> {
    let offset = (left.width() + GAP) as f32;
    let sheet = strip(&[left, right], max_pixels)?;
    let (width, height) = sheet.dimensions();
    let mut canvas = canvas(&sheet)?;
    // As readable on a large sheet that is scaled down as on a small one.
    let unit = (width as f32 / 900.0).max(1.0);
    // Dots of hundreds of matches would hide the images.
    let small = (300.0 / lines.len().max(1) as f32).sqrt().clamp(0.4, 1.0);
    let size = [left.width() as f32, left.height() as f32];
    let (outliers, inliers): (Vec<&Line>, Vec<&Line>) =
        lines.iter().partition(|line| line.is_outlier);
    let mut dot = |at: [f32; 2], radius: f32, color: [u8; 3]| {
        for (radius, color) in [(radius + small * unit, [255; 3]), (radius, color)] {
            if let Some(circle) = PathBuilder::from_circle(at[0], at[1], radius) {
                fill(&mut canvas, &circle, color);
            }
        }
    };
    for line in outliers {
        for at in [line.from, [line.to[0] + offset, line.to[1]]] {
            dot(at, 1.5 * small * unit, [110; 3]);
        }
    }
    for line in &inliers {
        let color = color_at(line.from, size);
        for at in [line.from, [line.to[0] + offset, line.to[1]]] {
            dot(at, 2.5 * small * unit, color);
        }
    }
    for line in spread(&inliers, size) {
        let to = [line.to[0] + offset, line.to[1]];
        let color = color_at(line.from, size);
        for (width, color) in [(3.2 * unit, [255; 3]), (1.8 * unit, color)] {
            stroke(&mut canvas, line.from, to, width, color);
        }
    }
    let pixels = canvas.pixels().iter();
    let pixels = pixels.flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]);
    let drawn = RgbImage::from_raw(width, height, pixels.collect());
    Ok(drawn.expect("three bytes for each pixel"))
}

/// Returns the first line that begins in each cell of the first image.
fn spread<'a>(lines: &[&'a Line], [width, height]: [f32; 2]) -> Vec<&'a Line> {
    let mut taken = [false; CELLS * CELLS];
    let cell = |value: f32, length: f32| ((value / length * CELLS as f32) as usize).min(CELLS - 1);
    let is_first = |line: &&&Line| {
        let cell = cell(line.from[1], height) * CELLS + cell(line.from[0], width);
        !std::mem::replace(&mut taken[cell], true)
    };
    lines.iter().filter(is_first).copied().collect()
}

/// Copies an image to a canvas.
fn canvas(image: &RgbImage) -> Result<Pixmap> {
    let rgba = image
        .pixels()
        .flat_map(|&image::Rgb([r, g, b])| [r, g, b, 255]);
    let size = IntSize::from_wh(image.width(), image.height());
    size.and_then(|size| Pixmap::from_vec(rgba.collect(), size))
        .ok_or_else(|| Error::internal("the drawing is too large for a canvas"))
}

fn paint([red, green, blue]: [u8; 3], opacity: u8) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, opacity);
    paint.anti_alias = true;
    paint
}

fn fill(canvas: &mut Pixmap, path: &Path, color: [u8; 3]) {
    let paint = paint(color, 255);
    canvas.fill_path(path, &paint, FillRule::Winding, Transform::identity(), None);
}

fn stroke(canvas: &mut Pixmap, from: [f32; 2], to: [f32; 2], width: f32, color: [u8; 3]) {
    let mut path = PathBuilder::new();
    path.move_to(from[0], from[1]);
    path.line_to(to[0], to[1]);
    let stroke = Stroke {
        width,
        line_cap: LineCap::Round,
        ..Stroke::default()
    };
    if let Some(path) = path.finish() {
        canvas.stroke_path(
            &path,
            &paint(color, 200),
            &stroke,
            Transform::identity(),
            None,
        );
    }
}

/// Returns the color of a place in an image: red at the left over green to violet at the right,
/// darker at the top.
fn color_at(at: [f32; 2], [width, height]: [f32; 2]) -> [u8; 3] {
    let hue = (at[0] / width).clamp(0.0, 1.0) * 290.0;
    let lightness = 0.38 + 0.27 * (at[1] / height).clamp(0.0, 1.0);
    let chroma = 0.95 * (1.0 - (2.0 * lightness - 1.0).abs());
    [0.0, 8.0, 4.0].map(|shift: f32| {
        // One channel of HSL.
        let k = (shift + hue / 30.0) % 12.0;
        let value = lightness - chroma / 2.0 * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_change_along_the_first_image() {
        let size = [100.0, 100.0];
        let [red, _, blue] = color_at([0.0, 50.0], size);
        assert!(red > 200 && blue < 100);
        let [red, green, blue] = color_at([100.0, 50.0], size);
        assert!(blue > 200 && green < 100 && red > 100);
        let sum = |[r, g, b]: [u8; 3]| u32::from(r) + u32::from(g) + u32::from(b);
        assert!(sum(color_at([50.0, 0.0], size)) < sum(color_at([50.0, 100.0], size)));
    }

    #[test]
    fn a_cell_has_one_line_and_all_matches_have_dots() {
        let image = RgbImage::from_pixel(160, 80, image::Rgb([0; 3]));
        let line = |[x, y]: [f32; 2], is_outlier| Line {
            from: [x, y],
            to: [x, y],
            is_outlier,
        };
        let lines = [
            line([2.0, 41.0], false),
            line([12.0, 41.0], false),
            line([150.0, 10.0], true),
        ];
        let inliers: Vec<&Line> = lines.iter().filter(|line| !line.is_outlier).collect();
        assert_eq!(spread(&inliers, [160.0, 80.0]).len(), 1);
        let drawn = joined_by_lines(&image, &image, &lines, 1 << 20).unwrap();
        assert_eq!(drawn.dimensions(), (160 + GAP + 160, 80));
        let pixel = |x: u32, y: u32| drawn.get_pixel(x, y).0;
        assert_eq!(pixel(150, 10), [110; 3]);
        assert_eq!(pixel(160 + GAP + 150, 10), [110; 3]);
        // The line crosses the gap, and the far side of the second image has none.
        assert_ne!(pixel(160 + GAP / 2, 41), [255; 3]);
        assert_eq!(pixel(160 + GAP / 2, 10), [255; 3]);
        assert_eq!(pixel(160 + GAP + 80, 41), [0; 3]);
    }
}
