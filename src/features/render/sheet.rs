//! Several renderings on one sheet.

use std::borrow::Borrow;

use embedded_graphics::{
    Pixel,
    mono_font::{MonoTextStyle, ascii::FONT_10X20},
    pixelcolor::BinaryColor,
    prelude::{Dimensions, DrawTarget, Drawable, OriginDimensions, Point, Size},
    text::{Baseline, Text},
};

use crate::{
    error::{Error, Kind, Result},
    vision::RgbImage,
};

/// Distance between renderings, in pixels.
pub(super) const GAP: u32 = 8;
const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [40; 3];
/// Height of the font's glyphs, in pixels.
const GLYPH: u32 = 20;

/// Arranges renderings of one size in a grid, each with its caption above, on white.
pub fn labeled_grid(renderings: &[(String, RgbImage)]) -> RgbImage {
    let first = renderings.first();
    let (width, height) = first.map_or((1, 1), |(_, rendering)| rendering.dimensions());
    // Captions grow with the renderings, so that they stay readable when the sheet is scaled down.
    let zoom = (width / 300).clamp(1, 3);
    let caption_height = GLYPH * zoom + GAP;
    let columns = columns_for(renderings.len() as u32, width, height + caption_height);
    let rows = (renderings.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(
        columns * (width + GAP) + GAP,
        rows * (height + caption_height + GAP) + GAP,
        image::Rgb(PAPER),
    );
    for (i, (caption, rendering)) in renderings.iter().enumerate() {
        let x = GAP + (i as u32 % columns) * (width + GAP);
        let y = GAP + (i as u32 / columns) * (height + caption_height + GAP);
        let canvas = Canvas {
            sheet: &mut sheet,
            x,
            y: y + GAP / 2,
            zoom,
        };
        canvas.write(caption);
        image::imageops::replace(&mut sheet, rendering, x.into(), (y + caption_height).into());
    }
    sheet
}

/// Places renderings side by side, on white, aligned at the top.
///
/// # Errors
/// [`Kind::LimitExceeded`] if the strip would have more than `max_pixels` pixels.
pub fn strip<I: Borrow<RgbImage>>(renderings: &[I], max_pixels: u64) -> Result<RgbImage> {
    let renderings = || renderings.iter().map(I::borrow);
    let height = renderings().map(RgbImage::height).max().unwrap_or(1);
    let widths = renderings().map(|rendering| rendering.width() + GAP);
    let width = widths.sum::<u32>().saturating_sub(GAP).max(1);
    if u64::from(width) * u64::from(height) > max_pixels {
        let detail = format!(
            "the renderings side by side would be {width}×{height}, more than the limit of \
             {max_pixels} pixels; request multipart/mixed, which gives one PNG per image"
        );
        let error = Error::new(Kind::LimitExceeded, detail);
        return Err(error.with_limit("max_image_pixels", max_pixels, "--max-image-pixels"));
    }
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb(PAPER));
    let mut x = 0;
    for rendering in renderings() {
        image::imageops::replace(&mut sheet, rendering, i64::from(x), 0);
        x += rendering.width() + GAP;
    }
    Ok(sheet)
}

/// Chooses the number of columns that fills all rows, or nearly, and makes the sheet about three
/// wide by two high.
fn columns_for(count: u32, width: u32, height: u32) -> u32 {
    let cost = |columns: u32| {
        let rows = count.div_ceil(columns);
        let aspect = f64::from(columns * width) / f64::from(rows * height);
        (aspect / 1.5).ln().abs() + f64::from(rows * columns - count)
    };
    let best = (1..=count.max(1)).min_by(|&a, &b| cost(a).total_cmp(&cost(b)));
    best.unwrap_or(1)
}

/// A place on a sheet for text; each of the font's pixels becomes a square of `zoom` pixels.
struct Canvas<'a> {
    sheet: &'a mut RgbImage,
    x: u32,
    y: u32,
    zoom: u32,
}

impl Canvas<'_> {
    fn write(mut self, text: &str) {
        let style = MonoTextStyle::new(&FONT_10X20, BinaryColor::On);
        // Drawing on a canvas in memory cannot fail.
        let Ok(_) = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut self);
    }
}

impl OriginDimensions for Canvas<'_> {
    fn size(&self) -> Size {
        Size::new(
            (self.sheet.width() - self.x) / self.zoom,
            (self.sheet.height() - self.y) / self.zoom,
        )
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Self::Error> {
        let area = self.bounding_box();
        for Pixel(point, color) in pixels {
            if color.is_on() && area.contains(point) {
                let left = self.x + point.x as u32 * self.zoom;
                let top = self.y + point.y as u32 * self.zoom;
                for y in top..top + self.zoom {
                    for x in left..left + self.zoom {
                        self.sheet.put_pixel(x, y, image::Rgb(INK));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_is_filled_and_about_three_by_two() {
        for (count, width, height, columns) in [
            (1, 100, 100, 1),
            (2, 100, 100, 2),
            (6, 100, 100, 3),
            (12, 100, 100, 4),
            (16, 100, 100, 4),
            (3, 100, 1000, 3),
        ] {
            assert_eq!(columns_for(count, width, height), columns, "{count}");
        }
    }
}
