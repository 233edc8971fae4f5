//! From samples of luma and chroma to RGB, with the arithmetic of libavif and libyuv.

use image::{DynamicImage, RgbImage, RgbaImage};

use super::{
    super::undecodable::undecodable,
    boxes::Color,
    planes::{Planes, Sampling, UNSPECIFIED},
};
use crate::error::{Error, Result};

/// Converts an image to RGB, and to RGBA if it has alpha.
pub(super) fn convert(
    image: &Planes,
    alpha: Option<Planes>,
    premultiplied: bool,
    color: Color,
) -> Result<DynamicImage> {
    let matrix = Matrix::of(color, image)?;
    let (width, height) = (image.size.width, image.size.height);
    let channels = if alpha.is_some() { 4 } else { 3 };
    let mut pixels = Vec::with_capacity(width * height * channels);
    let mut alpha_row = Vec::with_capacity(width);
    let mut row = Row::new(image, color, alpha.is_some(), matrix);
    for y in 0..height {
        let rounds = row.rounds_alpha;
        let rgb = row.convert(y);
        let Some(alpha) = &alpha else {
            pixels.extend(rgb.as_flattened());
            continue;
        };
        alpha_row.clear();
        alpha_row.extend(
            alpha.planes[0]
                .row(y)
                .iter()
                .map(|&sample| to_8_bits(sample, alpha, rounds)),
        );
        pixels.extend(rgb.iter().zip(&alpha_row).flat_map(|(&rgb, &alpha)| {
            let [r, g, b] = if premultiplied {
                rgb.map(|value| divide(value, alpha))
            } else {
                rgb
            };
            [r, g, b, alpha]
        }));
    }
    let (width, height) = (width as u32, height as u32);
    let image = if alpha.is_some() {
        RgbaImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgba8)
    } else {
        RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8)
    };
    image.ok_or_else(|| Error::internal("an AVIF has another number of pixels than its size"))
}

/// Converts a sample of alpha to 8 bits of full range.
fn to_8_bits(sample: u16, alpha: &Planes, rounds: bool) -> u8 {
    let sample = i32::from(sample);
    let max = (1 << alpha.depth) - 1;
    let shift = alpha.depth - 8;
    let full = if alpha.color.is_full_range {
        sample
    } else {
        let (black, white) = (16 << shift, 235 << shift);
        (((sample - black) * max + (white - black) / 2) / (white - black)).clamp(0, max)
    };
    if rounds {
        (0.5 + full as f32 / max as f32 * 255.0) as u8
    } else {
        (full >> shift) as u8
    }
}

/// Divides a premultiplied value by its alpha.
fn divide(value: u8, alpha: u8) -> u8 {
    let inverse = match alpha {
        0 => 0,
        1 => 0xFFFF,
        255 => return value,
        alpha => 0x1_0000 / u32::from(alpha),
    };
    ((u32::from(value) * 0x101 * inverse) >> 16).min(255) as u8
}

/// What turns luma and chroma into RGB.
#[derive(Debug, Clone, Copy)]
enum Matrix {
    /// Numbers with 6 bits after the point, as libyuv has them.
    Fixed(Fixed),
    /// Shares of red and blue in the luma.
    Shares { red: f32, blue: f32 },
    /// Planes of green, blue and red.
    Identity,
    /// Luma, and differences of green and of orange.
    GreenOrange,
}

#[derive(Debug, Clone, Copy)]
struct Fixed {
    luma: u32,
    black: i32,
    blue: i32,
    green: [i32; 2],
    red: i32,
}

const fn fixed(luma: u32, black: i32, blue: i32, green: [i32; 2], red: i32) -> Matrix {
    Matrix::Fixed(Fixed {
        luma,
        black,
        blue,
        green,
        red,
    })
}

impl Matrix {
    /// Chooses the matrix by its number in ITU-T H.273.
    fn of(color: Color, image: &Planes) -> Result<Self> {
        let number = match (color.matrix, color.primaries) {
            (UNSPECIFIED | 5, _) | (12, 5 | 6) => 6,
            (12, 1 | UNSPECIFIED) => 1,
            (12, 9) => 9,
            (number, _) => number,
        };
        Ok(match (number, color.is_full_range) {
            (6, false) => fixed(18_997, -1160, 128, [25, 52], 102),
            (6, true) => fixed(16_320, 32, 113, [22, 46], 90),
            (1, false) => fixed(18_997, -1160, 128, [14, 34], 115),
            (1, true) => fixed(16_320, 32, 119, [12, 30], 101),
            (9, false) => fixed(19_003, -1160, 128, [12, 42], 107),
            (9, true) => fixed(16_320, 32, 120, [11, 37], 94),
            (4, _) => Self::Shares {
                red: 0.3,
                blue: 0.11,
            },
            (7, _) => Self::Shares {
                red: 0.212,
                blue: 0.087,
            },
            (0, _) if matches!(image.sampling, Sampling::Full | Sampling::Gray) => Self::Identity,
            (8, true) => Self::GreenOrange,
            _ => {
                return Err(undecodable(
                    "AVIF",
                    format!(
                        "its colors have the matrix coefficients {} of ITU-T H.273, which are not \
                     supported",
                        color.matrix
                    ),
                ));
            }
        })
    }
}

/// Converts an image row by row.
struct Row<'a> {
    image: &'a Planes,
    matrix: Matrix,
    /// Bits of a sample that are used.
    depth: u32,
    /// Whether the nearest chroma sample is taken instead of a mean of four.
    nearest: bool,
    /// Whether alpha is rounded to 8 bits instead of cut.
    rounds_alpha: bool,
    /// Luma and chroma as shares of their ranges, for each sample value.
    shares: [Vec<f32>; 2],
    rgb: Vec<[u8; 3]>,
}

impl<'a> Row<'a> {
    fn new(image: &'a Planes, color: Color, has_alpha: bool, matrix: Matrix) -> Self {
        let is_gray = image.sampling == Sampling::Gray;
        // Gray without alpha never goes through libyuv.
        let matrix = match matrix {
            Matrix::Fixed(_) if is_gray && !has_alpha => Matrix::Identity,
            matrix => matrix,
        };
        // libyuv has few functions for more than 8 bits: libavif drops the low bits for the others.
        let is_quarter = image.sampling == Sampling::Quarter;
        let keeps_depth = match (matrix, image.depth) {
            (Matrix::Fixed(_), 10) => has_alpha && !is_gray,
            (Matrix::Fixed(_), _) => has_alpha && is_quarter,
            _ => true,
        };
        let depth = if keeps_depth { image.depth } else { 8 };
        let is_fixed = matches!(matrix, Matrix::Fixed(_));
        let nearest = depth == 12 && is_fixed;
        Self {
            image,
            matrix,
            depth,
            nearest,
            rounds_alpha: !is_fixed || is_gray || nearest,
            shares: shares(image.depth, color.is_full_range, matrix),
            rgb: vec![[0; 3]; image.size.width],
        }
    }

    fn convert(&mut self, y: usize) -> &[[u8; 3]] {
        let image = self.image;
        let luma = image.planes[0].row(y);
        let drop = image.depth - self.depth;
        let neutral = 1 << (self.depth - 1);
        for (x, &luma) in luma.iter().enumerate() {
            let luma_sample = u32::from(luma >> drop);
            self.rgb[x] = match self.matrix {
                Matrix::Fixed(fixed) => {
                    let (u, v) = match image.sampling {
                        Sampling::Gray => (neutral, neutral),
                        _ => self.mean_chroma(x, y, drop),
                    };
                    fixed.rgb(luma_sample, u, v, self.depth)
                }
                matrix => {
                    let luma = self.shares[0][usize::from(luma)];
                    let color = match image.sampling {
                        Sampling::Gray => [luma; 3],
                        _ => {
                            let [u, v] = self.chroma_shares(x, y);
                            matrix.rgb(luma, u, v)
                        }
                    };
                    color.map(|value| (0.5 + value.clamp(0.0, 1.0) * 255.0) as u8)
                }
            };
        }
        &self.rgb
    }

    /// Returns the places of the chroma samples next to a pixel: the nearest, and those next to it
    /// in the row, in the column, and in both.
    fn chroma_places(&self, x: usize, y: usize, last_is_alone: bool) -> [(usize, usize); 4] {
        let size = self.image.size;
        let next = |at: usize, side: usize, is_alone: bool| match at {
            0 => 0,
            _ if is_alone && at == side - 1 => at / 2,
            _ if at % 2 == 1 => at / 2 + 1,
            _ => at / 2 - 1,
        };
        let column = match self.image.sampling {
            Sampling::Full | Sampling::Gray => (x, x),
            _ => (
                x / 2,
                next(x, size.width, last_is_alone || size.width.is_multiple_of(2)),
            ),
        };
        let row = match self.image.sampling {
            Sampling::Quarter => (y / 2, next(y, size.height, size.height.is_multiple_of(2))),
            _ => (y, y),
        };
        [
            (column.0, row.0),
            (column.1, row.0),
            (column.0, row.1),
            (column.1, row.1),
        ]
    }

    fn mean_chroma(&self, x: usize, y: usize, drop: u32) -> (u32, u32) {
        let places = self.chroma_places(x, y, true);
        let mean = |plane: usize| {
            let plane = &self.image.planes[plane];
            let at = |(x, y): (usize, usize)| u32::from(plane.row(y)[x] >> drop);
            if self.nearest || self.image.sampling == Sampling::Full {
                return at(places[0]);
            }
            let [a, b, c, d] = places.map(at);
            (9 * a + 3 * b + 3 * c + d + 8) >> 4
        };
        (mean(1), mean(2))
    }

    fn chroma_shares(&self, x: usize, y: usize) -> [f32; 2] {
        let places = self.chroma_places(x, y, false);
        [1, 2].map(|plane| {
            let plane = &self.image.planes[plane];
            let [a, b, c, d] = places.map(|(x, y)| self.shares[1][usize::from(plane.row(y)[x])]);
            if self.image.sampling == Sampling::Full {
                return a;
            }
            a * (9.0 / 16.0) + b * (3.0 / 16.0) + c * (3.0 / 16.0) + d * (1.0 / 16.0)
        })
    }
}

impl Fixed {
    fn rgb(&self, luma: u32, u: u32, v: u32, depth: u32) -> [u8; 3] {
        // 16 bits of luma and 8 of chroma, whatever the depth.
        let luma = luma << (16 - depth) | luma >> (2 * depth - 16);
        let chroma = |sample: u32| (sample >> (depth - 8)).min(255) as i32 - 128;
        let (u, v) = (chroma(u), chroma(v));
        let luma = ((luma * self.luma) >> 16) as i32 + self.black;
        [
            luma + v * self.red,
            luma - (u * self.green[0] + v * self.green[1]),
            luma + u * self.blue,
        ]
        .map(|value| (value >> 6).clamp(0, 255) as u8)
    }
}

impl Matrix {
    fn rgb(self, luma: f32, u: f32, v: f32) -> [f32; 3] {
        match self {
            Self::Shares { red, blue } => {
                let green = 1.0 - red - blue;
                let mixed = red * (1.0 - red) * v + blue * (1.0 - blue) * u;
                [
                    luma + 2.0 * (1.0 - red) * v,
                    luma - 2.0 * mixed / green,
                    luma + 2.0 * (1.0 - blue) * u,
                ]
            }
            Self::GreenOrange => {
                let rest = luma - u;
                [rest + v, luma + u, rest - v]
            }
            Self::Identity | Self::Fixed(_) => [v, luma, u],
        }
    }
}

/// Returns luma and chroma as shares of their ranges, for each sample value.
fn shares(depth: u32, is_full_range: bool, matrix: Matrix) -> [Vec<f32>; 2] {
    let scale = 1_u32 << (depth - 8);
    let max = ((1_u32 << depth) - 1) as f32;
    let (black, luma_range, chroma_range) = if is_full_range {
        (0.0, max, max)
    } else {
        (
            (16 * scale) as f32,
            (219 * scale) as f32,
            (224 * scale) as f32,
        )
    };
    let neutral = (128 * scale) as f32;
    let table = |zero: f32, range: f32| -> Vec<f32> {
        let values = 0..1_u32 << depth;
        values.map(|value| (value as f32 - zero) / range).collect()
    };
    let luma = table(black, luma_range);
    let chroma = match matrix {
        Matrix::Identity => luma.clone(),
        _ => table(neutral, chroma_range),
    };
    [luma, chroma]
}
