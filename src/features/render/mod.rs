//! Renderings of maps: colors, upscaling, overlays, labeled grids, PNG.

mod heat;
mod lines;
mod regions;
mod sheet;

pub use self::{
    heat::heat_map,
    lines::{Line, joined_by_lines},
    regions::{indexed_png, over_regions},
    sheet::{labeled_grid, strip},
};
use super::similarity::Region;
use crate::{
    error::{Result, ResultExt},
    names::option_enum,
    vision::{Grid, PatchSize, ResampleFilter, RgbImage, Size, resample_f32},
};

option_enum! {
    /// How a map of patches is scaled to pixels.
    #[derive(Default)]
    pub enum Upscale {
        /// Each patch is a square of one color.
        #[default]
        Nearest,
        /// Straight lines between patch centers.
        Bilinear,
        /// Smooth curves between patch centers.
        Bicubic,
    }
}

option_enum! {
    /// Size of a rendering.
    #[derive(Default)]
    pub enum Output {
        /// As large as the image that the model saw.
        #[default]
        Input,
        /// One pixel per patch.
        Patch,
    }
}

option_enum! {
    /// Colors for a single value.
    #[derive(Default)]
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
}

impl Colormap {
    /// Returns the colors of 256 even steps, so that the gradient is not evaluated for each pixel.
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Style {
    /// Size of the rendering.
    pub output: Output,
    /// Way from patches to pixels.
    pub upscale: Upscale,
    /// Opacity of the map over the image, 0 to 1; 1 hides the image.
    pub overlay: f32,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            output: Output::default(),
            upscale: Upscale::default(),
            overlay: 1.0,
        }
    }
}

/// Draws a map of `channels` values in 0..1 per patch, `[h·w, channels]`. Three channels are RGB,
/// one is colored by `colormap`, two are red and green. `image` is what the model saw: each patch
/// of the grid is a square of its pixels.
pub fn draw(
    map: &[f32],
    channels: usize,
    grid: Grid,
    image: &RgbImage,
    style: Style,
    colormap: Colormap,
) -> RgbImage {
    let patch = patch_size(image, grid);
    let Size { width, height } = match style.output {
        Output::Input => grid.pixels(patch),
        Output::Patch => grid.pixels(PatchSize::new(1)),
    };
    let smooth = |filter: ResampleFilter| {
        let source = grid.pixels(PatchSize::new(1));
        resample_f32(map, source, channels, grid.pixels(patch), filter.kernel())
    };
    let scaled = match (style.output, style.upscale) {
        (Output::Patch, _) => map.to_vec(),
        (_, Upscale::Nearest) => nearest(map, channels, grid, patch),
        (_, Upscale::Bilinear) => smooth(ResampleFilter::Bilinear),
        (_, Upscale::Bicubic) => smooth(ResampleFilter::Bicubic),
    };
    let mut pixels: Vec<u8> = match channels {
        1 => {
            let table = colormap.table();
            let steps = scaled.iter().map(|&value| usize::from(to_byte(value)));
            steps.flat_map(|step| table[step]).collect()
        }
        _ => scaled
            .chunks(channels)
            .flat_map(|value| [0, 1, 2].map(|c| value.get(c).map_or(0, |&v| to_byte(v))))
            .collect(),
    };
    if style.overlay < 1.0 {
        let small;
        let behind = match style.output {
            Output::Input => image.as_raw(),
            Output::Patch => {
                small = image::imageops::thumbnail(image, width as u32, height as u32);
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

/// Draws a frame around some patches of a rendering: white with a black edge, so that it shows on
/// every color. A rendering of one pixel per patch has no room for it.
pub fn frame(rendering: &mut RgbImage, grid: Grid, region: &Region) {
    let patch = patch_size(rendering, grid).pixels();
    if patch == 1 {
        return;
    }
    let [top, bottom] = [region.rows.start, region.rows.end].map(|row| (row * patch) as i32);
    let [left, right] =
        [region.columns.start, region.columns.end].map(|column| (column * patch) as i32);
    let width = rendering.width() as i32;
    let height = rendering.height() as i32;
    // Distance of each line from the patches, outward.
    for (outside, color) in [(2, [0; 3]), (1, [255; 3]), (0, [255; 3]), (-1, [0; 3])] {
        let x = left - outside..right + outside;
        let y = top - outside..bottom + outside;
        for (px, py) in x.clone().flat_map(|px| y.clone().map(move |py| (px, py))) {
            let on_line = px == x.start || px == x.end - 1 || py == y.start || py == y.end - 1;
            if on_line && (0..width).contains(&px) && (0..height).contains(&py) {
                rendering.put_pixel(px as u32, py as u32, image::Rgb(color));
            }
        }
    }
}

/// Returns the side of a patch in an image that consists of `grid`.
fn patch_size(image: &RgbImage, grid: Grid) -> PatchSize {
    PatchSize::new((image.width() as usize / grid.width).max(1))
}

fn to_byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

fn nearest(map: &[f32], channels: usize, grid: Grid, patch: PatchSize) -> Vec<f32> {
    let patch = patch.pixels();
    let mut out = Vec::with_capacity(map.len() * patch * patch);
    for row in map.chunks(grid.width * channels) {
        let start = out.len();
        for value in row.chunks(channels) {
            (0..patch).for_each(|_| out.extend_from_slice(value));
        }
        let end = out.len();
        (1..patch).for_each(|_| out.extend_from_within(start..end));
    }
    out
}

/// Encodes a rendering as PNG, with fast compression.
pub fn png(rendering: &RgbImage) -> Result<Vec<u8>> {
    const ACTION: &str = "encoding PNG";
    let mut bytes = Vec::with_capacity(rendering.as_raw().len() / 4);
    let mut encoder = png::Encoder::new(&mut bytes, rendering.width(), rendering.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().internal(ACTION)?;
    let written = writer.write_image_data(rendering.as_raw());
    written.internal(ACTION)?;
    writer.finish().internal(ACTION)?;
    Ok(bytes)
}
