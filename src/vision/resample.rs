//! Separable resampling, bit-equal to Pillow's on 8-bit images (its `Resample.c`, Pillow 13).
//!
//! The filter's support grows with the shrink factor (antialiasing). Coefficients are computed in
//! f64, normalized, and rounded to 22-bit fixed point; each pass rounds to 8 bits. Only the
//! requested [`Window`] of the output is computed, which changes no value.
//!
//! The passes are laid out so that the compiler vectorizes them: the innermost loop always runs
//! over contiguous bytes. [`pulp`] picks the widest instruction set at run time (SSE2, AVX2,
//! AVX-512, NEON).

use pulp::Arch;

use super::RgbImage;

const FIXED_BITS: u32 = 22;
/// Rows that the horizontal pass handles together; 16 rows of RGB are 48 contiguous bytes, or one
/// and a half AVX2 lanes of i32.
const ROWS: usize = 16;

/// The filters a client may ask for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ResampleFilter {
    /// Bicubic with a = −0.5, the evaluation transform's filter.
    #[default]
    Bicubic,
    /// Bilinear (a triangle), torchvision's default.
    Bilinear,
}

/// A filter's shape before it is stretched.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Half width in source pixels at scale 1.
    pub support: f64,
    /// The weight at a distance.
    pub weight: fn(f64) -> f64,
}

impl ResampleFilter {
    /// The kernel of this filter.
    pub fn kernel(self) -> Kernel {
        match self {
            Self::Bicubic => Kernel {
                support: 2.0,
                weight: bicubic,
            },
            Self::Bilinear => Kernel {
                support: 1.0,
                weight: triangle,
            },
        }
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic with a = −0.5, in the order of operations Pillow uses, so that the last bit agrees.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// For each output position the first source position it reads and its weights.
#[derive(Debug, Clone)]
pub struct Taps<T> {
    starts: Vec<usize>,
    lengths: Vec<usize>,
    weights: Vec<T>,
    stride: usize,
}

impl<T> Taps<T> {
    /// The first source index and the weights of output position `i`.
    pub fn at(&self, i: usize) -> (usize, &[T]) {
        let from = i * self.stride;
        (self.starts[i], &self.weights[from..from + self.lengths[i]])
    }

    /// Number of output positions.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no output position.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    fn map<U>(self, f: impl Fn(T) -> U) -> Taps<U> {
        Taps {
            starts: self.starts,
            lengths: self.lengths,
            weights: self.weights.into_iter().map(f).collect(),
            stride: self.stride,
        }
    }
}

/// The normalized weights of output positions `range` when `input` samples become `output`.
pub fn taps(
    kernel: Kernel,
    input: usize,
    output: usize,
    range: std::ops::Range<usize>,
) -> Taps<f64> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let support = kernel.support * stretch;
    let stride = support.ceil() as usize * 2 + 1;
    let inverse = 1.0 / stretch;
    let mut taps = Taps {
        starts: Vec::with_capacity(range.len()),
        lengths: Vec::with_capacity(range.len()),
        weights: vec![0.0; range.len() * stride],
        stride,
    };
    for (i, position) in range.enumerate() {
        let center = (position as f64 + 0.5) * scale;
        // Pillow truncates toward zero and then clamps.
        let start = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as i64).min(input as i64) as usize;
        let row = &mut taps.weights[i * stride..i * stride + (end - start)];
        let mut sum = 0.0;
        for (j, weight) in row.iter_mut().enumerate() {
            *weight = (kernel.weight)(((j + start) as f64 - center + 0.5) * inverse);
            sum += *weight;
        }
        if sum != 0.0 {
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
        taps.starts.push(start);
        taps.lengths.push(end - start);
    }
    taps
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << FIXED_BITS);
    (if weight < 0.0 {
        scaled - 0.5
    } else {
        scaled + 0.5
    }) as i32
}

#[inline(always)]
fn round_to_u8(sum: i32) -> u8 {
    (sum >> FIXED_BITS).clamp(0, 255) as u8
}

/// The part of the resized image that is wanted, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Left edge.
    pub x: usize,
    /// Top edge.
    pub y: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

/// Resizes `image` to `width`×`height` as Pillow does and returns the `window` of the result.
pub fn resample_rgb(
    image: &RgbImage,
    (width, height): (usize, usize),
    filter: ResampleFilter,
    window: Window,
) -> RgbImage {
    let (source_width, source_height) = (image.width() as usize, image.height() as usize);
    let fixed = |input, output, range| taps(filter.kernel(), input, output, range).map(fixed_point);
    let columns = fixed(source_width, width, window.x..window.x + window.width);
    let rows = fixed(source_height, height, window.y..window.y + window.height);
    let source = Plane {
        data: image.as_raw(),
        width: source_width,
        height: source_height,
    };
    let arch = Arch::new();

    let pixels = match (width != source_width, height != source_height) {
        (false, false) => crop(source, window),
        (true, false) => {
            let band = source.band(window.y, window.height);
            arch.dispatch(|| horizontal(band, &columns))
        }
        (false, true) => {
            let narrow = crop(
                source,
                Window {
                    y: 0,
                    height: source_height,
                    ..window
                },
            );
            let narrow = Plane {
                data: &narrow,
                width: window.width,
                height: source_height,
            };
            arch.dispatch(|| vertical(narrow, &rows))
        }
        (true, true) if vertical_first((source_width, source_height), (width, height)) => arch
            .dispatch(|| {
                let low = vertical(source, &rows);
                horizontal(
                    Plane {
                        data: &low,
                        width: source_width,
                        height: window.height,
                    },
                    &columns,
                )
            }),
        (true, true) => arch.dispatch(|| {
            // Only the source rows that some output row reads go through the first pass.
            let (first, _) = rows.at(0);
            let (start, weights) = rows.at(rows.len() - 1);
            let count = start + weights.len() - first;
            let narrow = horizontal(source.band(first, count), &columns);
            let mut rows = rows.clone();
            rows.starts.iter_mut().for_each(|start| *start -= first);
            vertical(
                Plane {
                    data: &narrow,
                    width: window.width,
                    height: count,
                },
                &rows,
            )
        }),
    };
    RgbImage::from_raw(window.width as u32, window.height as u32, pixels)
        .expect("a window has width × height × 3 bytes")
}

/// Since version 13 Pillow goes vertically first when that is cheaper: the height shrinks, and by
/// more than twice the width does.
fn vertical_first(
    (source_width, source_height): (usize, usize),
    (width, height): (usize, usize),
) -> bool {
    let shrink_x = source_width as i64 - width as i64;
    let shrink_y = source_height as i64 - height as i64;
    shrink_y > 0 && shrink_y > 2 * shrink_x
}

#[derive(Clone, Copy)]
struct Plane<'a> {
    data: &'a [u8],
    width: usize,
    height: usize,
}

impl<'a> Plane<'a> {
    fn rows(self, first: usize, count: usize) -> &'a [u8] {
        &self.data[first * self.width * 3..(first + count) * self.width * 3]
    }

    fn band(self, first: usize, count: usize) -> Self {
        Self {
            data: self.rows(first, count),
            width: self.width,
            height: count,
        }
    }
}

fn crop(source: Plane<'_>, window: Window) -> Vec<u8> {
    let mut out = Vec::with_capacity(window.width * window.height * 3);
    for y in window.y..window.y + window.height {
        out.extend_from_slice(&source.rows(y, 1)[window.x * 3..(window.x + window.width) * 3]);
    }
    out
}

/// Sixteen rows are turned on their side, so that one source column of all of them is contiguous.
#[inline(always)]
fn horizontal(source: Plane<'_>, columns: &Taps<i32>) -> Vec<u8> {
    let row_bytes = columns.len() * 3;
    let mut out = vec![0; source.height * row_bytes];
    let mut turned = vec![[0u8; ROWS * 3]; source.width];
    for (block, target) in out.chunks_mut(ROWS * row_bytes).enumerate() {
        let count = target.len() / row_bytes;
        for row in 0..count {
            let pixels = source.rows(block * ROWS + row, 1).as_chunks::<3>().0;
            for (column, pixel) in turned.iter_mut().zip(pixels) {
                column[row * 3..row * 3 + 3].copy_from_slice(pixel);
            }
        }
        for x in 0..columns.len() {
            let (start, weights) = columns.at(x);
            let mut sums = [1i32 << (FIXED_BITS - 1); ROWS * 3];
            for (column, &weight) in turned[start..start + weights.len()].iter().zip(weights) {
                for (sum, &byte) in sums.iter_mut().zip(column) {
                    *sum += i32::from(byte) * weight;
                }
            }
            for row in 0..count {
                for channel in 0..3 {
                    target[row * row_bytes + x * 3 + channel] =
                        round_to_u8(sums[row * 3 + channel]);
                }
            }
        }
    }
    out
}

#[inline(always)]
fn vertical(source: Plane<'_>, rows: &Taps<i32>) -> Vec<u8> {
    let row_bytes = source.width * 3;
    let mut out = vec![0; rows.len() * row_bytes];
    let mut sums = vec![0i32; row_bytes];
    for (y, target) in out.chunks_mut(row_bytes).enumerate() {
        let (start, weights) = rows.at(y);
        sums.fill(1 << (FIXED_BITS - 1));
        for (row, &weight) in source
            .rows(start, weights.len())
            .chunks(row_bytes)
            .zip(weights)
        {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(byte) * weight;
            }
        }
        for (byte, &sum) in target.iter_mut().zip(&sums) {
            *byte = round_to_u8(sum);
        }
    }
    out
}

/// Resizes an f32 map `[height, width, channels]` with an antialiased kernel, for upscaling small
/// maps to pictures.
pub fn resample_f32(
    map: &[f32],
    (source_width, source_height): (usize, usize),
    channels: usize,
    (width, height): (usize, usize),
    kernel: Kernel,
) -> Vec<f32> {
    assert_eq!(
        map.len(),
        source_width * source_height * channels,
        "the map has width × height × channels values"
    );
    let columns = taps(kernel, source_width, width, 0..width);
    let mut wide = vec![0.0f32; source_height * width * channels];
    for (row, target) in map
        .chunks(source_width * channels)
        .zip(wide.chunks_mut(width * channels))
    {
        for (x, target) in target.chunks_mut(channels).enumerate() {
            let (start, weights) = columns.at(x);
            for (value, &weight) in row[start * channels..].chunks(channels).zip(weights) {
                target
                    .iter_mut()
                    .zip(value)
                    .for_each(|(t, &v)| *t += v * weight as f32);
            }
        }
    }
    let rows = taps(kernel, source_height, height, 0..height);
    let mut out = vec![0.0f32; height * width * channels];
    for (y, target) in out.chunks_mut(width * channels).enumerate() {
        let (start, weights) = rows.at(y);
        for (row, &weight) in wide[start * width * channels..]
            .chunks(width * channels)
            .zip(weights)
        {
            target
                .iter_mut()
                .zip(row)
                .for_each(|(t, &v)| *t += v * weight as f32);
        }
    }
    out
}
