//! Maps as pictures: colors, upscaling, overlays, labeled grids, PNG.

use embedded_graphics::{
    Pixel,
    mono_font::{MonoTextStyle, ascii::FONT_10X20},
    pixelcolor::BinaryColor,
    prelude::{DrawTarget, Drawable, OriginDimensions, Point, Size},
    text::{Baseline, Text},
};

use super::similarity::Region;
use crate::{
    error::{Error, Kind, Result},
    vision::{Grid, Kernel, PATCH, ResampleFilter, RgbImage, resample_f32},
};

/// How a map of patches becomes a picture of pixels.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Upscale {
    /// Each patch is a square of one color.
    #[default]
    Nearest,
    /// Straight lines between patch centers.
    Bilinear,
    /// Smooth curves between patch centers.
    Bicubic,
}

/// Size of the picture.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Output {
    /// As large as the image that the model saw.
    #[default]
    Input,
    /// One pixel per patch.
    Patch,
}

/// Colors for a single value.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Colormap {
    /// Dark violet to yellow.
    #[default]
    Viridis,
    /// Black over red to pale yellow.
    Inferno,
    /// Black over violet to pale yellow.
    Magma,
    /// Black to white.
    Gray,
}

impl Colormap {
    /// The colors of 256 even steps, so that a picture does not evaluate the gradient for each
    /// pixel.
    fn table(self) -> [[u8; 3]; 256] {
        let gradient = match self {
            Self::Viridis => colorous::VIRIDIS,
            Self::Inferno => colorous::INFERNO,
            Self::Magma => colorous::MAGMA,
            Self::Gray => return std::array::from_fn(|step| [step as u8; 3]),
        };
        std::array::from_fn(|step| {
            let color = gradient.eval_rational(step, 256);
            [color.r, color.g, color.b]
        })
    }
}

/// How a map is drawn.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Style {
    /// Size of the picture.
    pub output: Output,
    /// The way from patches to pixels.
    pub upscale: Upscale,
    /// Opacity of the map over the photograph: 1 hides the photograph.
    pub overlay: f32,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            output: Output::Input,
            upscale: Upscale::Nearest,
            overlay: 1.0,
        }
    }
}

/// Draws a map of `channels` values in 0..1 per patch, `[h·w, channels]`. Three channels are RGB,
/// one is colored by `colormap`, two are red and green. `photo` is the image that the model saw.
pub fn draw(
    map: &[f32],
    channels: usize,
    grid: Grid,
    photo: &RgbImage,
    style: Style,
    colormap: Colormap,
) -> RgbImage {
    let (width, height) = match style.output {
        Output::Input => (grid.width * PATCH, grid.height * PATCH),
        Output::Patch => (grid.width, grid.height),
    };
    let scaled = match (style.output, style.upscale) {
        (Output::Patch, _) => map.to_vec(),
        (_, Upscale::Nearest) => nearest(map, channels, grid),
        (_, Upscale::Bilinear) => smooth(map, channels, grid, ResampleFilter::Bilinear.kernel()),
        (_, Upscale::Bicubic) => smooth(map, channels, grid, ResampleFilter::Bicubic.kernel()),
    };
    let mut pixels: Vec<u8> = match channels {
        1 => {
            let table = colormap.table();
            scaled
                .iter()
                .flat_map(|&value| table[usize::from(to_byte(value))])
                .collect()
        }
        2 => scaled
            .chunks(2)
            .flat_map(|value| [to_byte(value[0]), to_byte(value[1]), 0])
            .collect(),
        _ => scaled
            .chunks(channels)
            .flat_map(|value| [value[0], value[1], value[2]].map(to_byte))
            .collect(),
    };
    if style.overlay < 1.0 {
        let small;
        let behind = match style.output {
            Output::Input => photo.as_raw(),
            Output::Patch => {
                small = image::imageops::thumbnail(photo, width as u32, height as u32);
                small.as_raw()
            }
        };
        for (top, &below) in pixels.iter_mut().zip(behind) {
            *top = (f32::from(*top) * style.overlay + f32::from(below) * (1.0 - style.overlay))
                .round() as u8;
        }
    }
    RgbImage::from_raw(width as u32, height as u32, pixels).expect("three bytes for each pixel")
}

/// Draws a frame around some patches: white, on black, so that it shows on every color. On a
/// picture of one pixel per patch there is no room for it.
pub fn frame(picture: &mut RgbImage, region: &Region, output: Output) {
    if output == Output::Patch {
        return;
    }
    let [top, bottom] = [region.rows.start, region.rows.end].map(|row| (row * PATCH) as i32);
    let [left, right] =
        [region.columns.start, region.columns.end].map(|column| (column * PATCH) as i32);
    let (width, height) = (picture.width() as i32, picture.height() as i32);
    // How far outside of the patches each line lies.
    for (outside, color) in [(2, [0; 3]), (1, [255; 3]), (0, [255; 3]), (-1, [0; 3])] {
        let (x, y) = (
            left - outside..right + outside,
            top - outside..bottom + outside,
        );
        for (px, py) in x.clone().flat_map(|px| y.clone().map(move |py| (px, py))) {
            let on_line = px == x.start || px == x.end - 1 || py == y.start || py == y.end - 1;
            if on_line && (0..width).contains(&px) && (0..height).contains(&py) {
                picture.put_pixel(px as u32, py as u32, image::Rgb(color));
            }
        }
    }
}

fn to_byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

fn nearest(map: &[f32], channels: usize, grid: Grid) -> Vec<f32> {
    let mut out = Vec::with_capacity(map.len() * PATCH * PATCH);
    for row in map.chunks(grid.width * channels) {
        let start = out.len();
        row.chunks(channels)
            .for_each(|value| (0..PATCH).for_each(|_| out.extend_from_slice(value)));
        let end = out.len();
        (1..PATCH).for_each(|_| out.extend_from_within(start..end));
    }
    out
}

fn smooth(map: &[f32], channels: usize, grid: Grid, kernel: Kernel) -> Vec<f32> {
    let size = (grid.width * PATCH, grid.height * PATCH);
    resample_f32(map, (grid.width, grid.height), channels, size, kernel)
}

const GAP: u32 = 8;
const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [40; 3];
/// Height of the font's glyphs.
const GLYPH: u32 = 20;

/// Pictures of one size in a grid, each with its caption above, on white.
pub fn labeled_grid(pictures: &[(String, RgbImage)]) -> RgbImage {
    let (width, height) = pictures
        .first()
        .map_or((1, 1), |(_, picture)| picture.dimensions());
    // Captions grow with the pictures, so that they stay readable when the sheet is shown smaller.
    let zoom = (width / 300).clamp(1, 3);
    let caption_height = GLYPH * zoom + GAP;
    let columns = columns_for(pictures.len() as u32, width, height + caption_height);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let size = (
        columns * (width + GAP) + GAP,
        rows * (height + caption_height + GAP) + GAP,
    );
    let mut sheet = RgbImage::from_pixel(size.0, size.1, image::Rgb(PAPER));
    for (i, (caption, picture)) in pictures.iter().enumerate() {
        let x = GAP + (i as u32 % columns) * (width + GAP);
        let y = GAP + (i as u32 / columns) * (height + caption_height + GAP);
        write(
            &mut Canvas {
                sheet: &mut sheet,
                x,
                y: y + GAP / 2,
                zoom,
            },
            caption,
        );
        image::imageops::replace(&mut sheet, picture, x.into(), (y + caption_height).into());
    }
    sheet
}

/// Pictures side by side, on white, aligned at the top.
///
/// # Errors
/// [`Kind::LimitExceeded`] if the strip would have more than `max_pixels` pixels.
pub fn strip(pictures: &[RgbImage], max_pixels: u64) -> Result<RgbImage> {
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(1);
    let width = pictures
        .iter()
        .map(|picture| picture.width() + GAP)
        .sum::<u32>()
        .saturating_sub(GAP)
        .max(1);
    if u64::from(width) * u64::from(height) > max_pixels {
        let detail = format!(
            "the pictures side by side would be {width}×{height}, more than the limit of {max_pixels} pixels; ask for \
             multipart/mixed, which gives one PNG per image"
        );
        let error = Error::new(Kind::LimitExceeded, detail);
        return Err(error.with_limit("max_image_pixels", max_pixels, "--max-image-pixels"));
    }
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb(PAPER));
    let mut x = 0;
    for picture in pictures {
        image::imageops::replace(&mut sheet, picture, i64::from(x), 0);
        x += picture.width() + GAP;
    }
    Ok(sheet)
}

/// The number of columns that fills all rows, or nearly, and makes the sheet about three wide by
/// two high.
fn columns_for(count: u32, width: u32, height: u32) -> u32 {
    let cost = |columns: u32| {
        let rows = count.div_ceil(columns);
        let aspect = f64::from(columns * width) / f64::from(rows * height);
        (aspect / 1.5).ln().abs() + f64::from(rows * columns - count)
    };
    (1..=count.max(1))
        .min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
        .unwrap_or(1)
}

fn write(canvas: &mut Canvas<'_>, text: &str) {
    let style = MonoTextStyle::new(&FONT_10X20, BinaryColor::On);
    // Drawing on a canvas in memory cannot fail.
    let Ok(_) = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(canvas);
}

/// A place on a sheet to write on; each of the font's pixels becomes a square of `zoom` pixels.
struct Canvas<'a> {
    sheet: &'a mut RgbImage,
    x: u32,
    y: u32,
    zoom: u32,
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
        let size = self.size();
        for Pixel(point, color) in pixels {
            let inside = (0..size.width as i32).contains(&point.x)
                && (0..size.height as i32).contains(&point.y);
            if inside && color.is_on() {
                let (x, y) = (
                    self.x + point.x as u32 * self.zoom,
                    self.y + point.y as u32 * self.zoom,
                );
                for (dx, dy) in (0..self.zoom).flat_map(|dy| (0..self.zoom).map(move |dx| (dx, dy)))
                {
                    self.sheet.put_pixel(x + dx, y + dy, image::Rgb(INK));
                }
            }
        }
        Ok(())
    }
}

/// The PNG file of a picture, compressed fast.
///
/// # Errors
/// Never in practice: writing to memory does not fail.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| Error::internal(format!("encoding PNG: {error}"));
    let mut bytes = Vec::with_capacity(picture.as_raw().len() / 4);
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(picture.as_raw()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}
