//! Separable resampling, bit-equal to Pillow's on 8-bit images (its `Resample.c`, Pillow 13).
//!
//! Weights are computed in f64, normalized, and rounded to 22-bit fixed point; each pass rounds to
//! 8 bits. Only the requested [`Window`] of the output is computed, which changes no value.
//!
//! The passes are laid out so that the compiler vectorizes them: the innermost loop always runs
//! over contiguous bytes. [`pulp`] picks the widest instruction set at run time (SSE2, AVX2,
//! AVX-512, NEON).

use pulp::Arch;

use super::{
    Kernel, ResampleFilter, RgbImage, Size,
    taps::{Tap, Taps, taps},
};

const FIXED_BITS: u32 = 22;
/// Rows that the horizontal pass handles together; 16 rows of RGB are 48 contiguous bytes, or one
/// and a half AVX2 lanes of i32.
const ROWS: usize = 16;

/// A part of a resized image, in its pixels.
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

impl Window {
    /// Returns the window that shows all of an image of `size`.
    pub const fn whole(Size { width, height }: Size) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }
}

/// Resizes `image` to `size` as Pillow does and returns the `window` of the result.
pub fn resample_rgb(
    image: &RgbImage,
    size: Size,
    filter: ResampleFilter,
    window: Window,
) -> RgbImage {
    let source_size = Size::of(image);
    let fixed = |input, output, range| taps(filter.kernel(), input, output, range).map(fixed_point);
    let visible_columns = window.x..window.x + window.width;
    let columns = fixed(source_size.width, size.width, visible_columns);
    let visible_rows = window.y..window.y + window.height;
    let rows = fixed(source_size.height, size.height, visible_rows);
    let source = Plane::new(image.as_raw(), source_size.width);
    let arch = Arch::new();

    let pixels = match (
        size.width != source_size.width,
        size.height != source_size.height,
    ) {
        (false, false) => crop(source, window),
        (true, false) => {
            let band = source.band(window.y, window.height);
            arch.dispatch(|| horizontal(band, &columns))
        }
        (false, true) => {
            let strip = Window {
                y: 0,
                height: source.height,
                ..window
            };
            let narrow = crop(source, strip);
            arch.dispatch(|| vertical(Plane::new(&narrow, window.width), &rows))
        }
        (true, true) if vertical_first(source_size, size) => arch.dispatch(|| {
            let low = vertical(source, &rows);
            horizontal(Plane::new(&low, source.width), &columns)
        }),
        (true, true) => arch.dispatch(|| {
            // Only the source rows that some output row reads go through the first pass.
            let first = rows.at(0).start;
            let last = rows.at(rows.len() - 1);
            let count = last.start + last.weights.len() - first;
            let narrow = horizontal(source.band(first, count), &columns);
            let mut rows = rows.clone();
            rows.starts.iter_mut().for_each(|start| *start -= first);
            vertical(Plane::new(&narrow, window.width), &rows)
        }),
    };
    RgbImage::from_raw(window.width as u32, window.height as u32, pixels)
        .expect("a window has width × height × 3 bytes")
}

/// Resizes an f32 map `[height, width, channels]` of `source` size with an antialiased kernel, for
/// upscaling small maps.
pub fn resample_f32(
    map: &[f32],
    source: Size,
    channels: usize,
    size: Size,
    kernel: Kernel,
) -> Vec<f32> {
    assert_eq!(
        map.len(),
        source.width * source.height * channels,
        "the map has width × height × channels values"
    );
    let row_length = size.width * channels;
    let columns = taps(kernel, source.width, size.width, 0..size.width);
    let mut wide = vec![0.0f32; source.height * row_length];
    for (row, target) in map
        .chunks(source.width * channels)
        .zip(wide.chunks_mut(row_length))
    {
        for (x, target) in target.chunks_mut(channels).enumerate() {
            let Tap { start, weights } = columns.at(x);
            for (values, &weight) in row[start * channels..].chunks(channels).zip(weights) {
                add_scaled(target, values, weight as f32);
            }
        }
    }
    let rows = taps(kernel, source.height, size.height, 0..size.height);
    let mut out = vec![0.0f32; size.height * row_length];
    for (y, target) in out.chunks_mut(row_length).enumerate() {
        let Tap { start, weights } = rows.at(y);
        for (row, &weight) in wide[start * row_length..].chunks(row_length).zip(weights) {
            add_scaled(target, row, weight as f32);
        }
    }
    out
}

fn add_scaled(target: &mut [f32], values: &[f32], weight: f32) {
    for (target, &value) in target.iter_mut().zip(values) {
        *target += value * weight;
    }
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

/// Whether the vertical pass is first. Since version 13 Pillow does that when it is cheaper: the
/// height shrinks, and by more than twice as much as the width.
fn vertical_first(source: Size, target: Size) -> bool {
    let shrink_x = source.width as i64 - target.width as i64;
    let shrink_y = source.height as i64 - target.height as i64;
    shrink_y > 0 && shrink_y > 2 * shrink_x
}

#[derive(Clone, Copy)]
struct Plane<'a> {
    data: &'a [u8],
    width: usize,
    height: usize,
}

impl<'a> Plane<'a> {
    /// Wraps whole rows of `width` RGB pixels.
    fn new(data: &'a [u8], width: usize) -> Self {
        let height = data.len() / (3 * width).max(1);
        Self {
            data,
            width,
            height,
        }
    }

    fn rows(self, first: usize, count: usize) -> &'a [u8] {
        &self.data[first * self.width * 3..(first + count) * self.width * 3]
    }

    fn band(self, first: usize, count: usize) -> Self {
        Self::new(self.rows(first, count), self.width)
    }
}

fn crop(source: Plane<'_>, window: Window) -> Vec<u8> {
    let mut out = Vec::with_capacity(window.width * window.height * 3);
    for y in window.y..window.y + window.height {
        out.extend_from_slice(&source.rows(y, 1)[window.x * 3..(window.x + window.width) * 3]);
    }
    out
}

/// Resizes each row. Sixteen rows are transposed at a time, so that one source column of all of
/// them is contiguous.
#[inline(always)]
fn horizontal(source: Plane<'_>, columns: &Taps<i32>) -> Vec<u8> {
    let row_bytes = columns.len() * 3;
    let mut out = vec![0; source.height * row_bytes];
    let mut transposed = vec![[0u8; ROWS * 3]; source.width];
    for (block, target) in out.chunks_mut(ROWS * row_bytes).enumerate() {
        let count = target.len() / row_bytes;
        for row in 0..count {
            let pixels = source.rows(block * ROWS + row, 1).as_chunks::<3>().0;
            for (column, pixel) in transposed.iter_mut().zip(pixels) {
                column[row * 3..row * 3 + 3].copy_from_slice(pixel);
            }
        }
        for x in 0..columns.len() {
            let Tap { start, weights } = columns.at(x);
            let mut sums = [1i32 << (FIXED_BITS - 1); ROWS * 3];
            for (column, &weight) in transposed[start..start + weights.len()].iter().zip(weights) {
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

/// Resizes each column.
#[inline(always)]
fn vertical(source: Plane<'_>, rows: &Taps<i32>) -> Vec<u8> {
    let row_bytes = source.width * 3;
    let mut out = vec![0; rows.len() * row_bytes];
    let mut sums = vec![0i32; row_bytes];
    for (y, target) in out.chunks_mut(row_bytes).enumerate() {
        let Tap { start, weights } = rows.at(y);
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
