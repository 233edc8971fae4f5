//! Separable resampling, bit-equal to Pillow's on 8-bit images (its `Resample.c`, Pillow 13).
//!
//! Weights are computed in f64, normalized, and rounded to 22-bit fixed point; each pass rounds to
//! 8 bits. Only the requested [`Window`] of the output is computed, which changes no value.
//!
//! The passes are laid out so that the compiler vectorizes them: the innermost loop always runs
//! over contiguous bytes. [`pulp`] picks the widest instruction set at run time (SSE2, AVX2,
//! AVX-512, NEON).

use image::metadata::Orientation;
use pulp::Arch;

use super::{
    Kernel, ResampleFilter, RgbImage, Size,
    orientation::{is_quarter, turned, upright},
    rows::{Plane, Quarter, ROWS, Rows},
    taps::{Tap, Taps, taps},
};

const FIXED_BITS: u32 = 22;

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

    let pixels = match changes(source_size, size) {
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
            let rows = rows.clone().shifted(first);
            vertical(Plane::new(&narrow, window.width), &rows)
        }),
    };
    RgbImage::from_raw(window.width as u32, window.height as u32, pixels)
        .expect("a window has width × height × 3 bytes")
}

/// Resizes an image like [`resample_rgb`] after turning it upright, without a turned copy where
/// [`reads_turned`] says so.
pub(super) fn resample_turned(
    image: &RgbImage,
    orientation: Orientation,
    size: Size,
    filter: ResampleFilter,
    window: Window,
) -> RgbImage {
    let source_size = turned(Size::of(image), orientation);
    if !reads_turned(orientation, source_size, size) {
        let copy = upright(image, orientation);
        return resample_rgb(copy.as_ref().unwrap_or(image), size, filter, window);
    }
    if !is_quarter(orientation) {
        return resample_rgb(image, size, filter, window);
    }
    let fixed = |input, output, range| taps(filter.kernel(), input, output, range).map(fixed_point);
    let visible_columns = window.x..window.x + window.width;
    let columns = fixed(source_size.width, size.width, visible_columns);
    let visible_rows = window.y..window.y + window.height;
    let rows = fixed(source_size.height, size.height, visible_rows);
    let pixels = Arch::new().dispatch(|| {
        let first = rows.at(0).start;
        let last = rows.at(rows.len() - 1);
        let stored = Plane::new(image.as_raw(), source_size.height);
        let count = last.start + last.weights.len() - first;
        let source = Quarter::new(stored, orientation, first, count);
        let narrow = horizontal(source, &columns);
        let rows = rows.clone().shifted(first);
        vertical(Plane::new(&narrow, window.width), &rows)
    });
    RgbImage::from_raw(window.width as u32, window.height as u32, pixels)
        .expect("a window has width × height × 3 bytes")
}

/// Whether an image of an upright size is resized from the image as stored. Only the first pass
/// over rows can do that.
pub(super) fn reads_turned(orientation: Orientation, upright: Size, size: Size) -> bool {
    !is_quarter(orientation)
        || changes(upright, size) == (true, true) && !vertical_first(upright, size)
}

/// Whether the width and the height change.
fn changes(source: Size, size: Size) -> (bool, bool) {
    (source.width != size.width, source.height != size.height)
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
fn horizontal(source: impl Rows, columns: &Taps<i32>) -> Vec<u8> {
    let row_bytes = columns.len() * 3;
    let Size { width, height } = source.size();
    let mut out = vec![0; height * row_bytes];
    let mut transposed = vec![[0u8; ROWS * 3]; width];
    for (block, target) in out.chunks_mut(ROWS * row_bytes).enumerate() {
        let count = target.len() / row_bytes;
        source.transpose(block * ROWS, count, &mut transposed);
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

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn an_image_as_stored_gives_the_pixels_of_the_turned_copy() {
        let (width, height) = (61, 47);
        let image = RgbImage::from_fn(width, height, |x, y| {
            Rgb([7 * x + 13 * y, x * y, (31 * x) ^ y].map(|value| value as u8))
        });
        let mut read = 0;
        for orientation in (1..=8).filter_map(Orientation::from_exif) {
            let copy = upright(&image, orientation);
            let expected = copy.as_ref().unwrap_or(&image);
            let source = Size::of(expected);
            for (width, height) in [(20, 17), (90, 70), (61, 20), (60, 9), (20, 60), (9, 5)] {
                let size = Size::new(width, height);
                let part = Window {
                    x: width / 4,
                    y: height / 3,
                    width: width / 2,
                    height: height / 2,
                };
                let is_quarter = is_quarter(orientation);
                read += usize::from(is_quarter && reads_turned(orientation, source, size));
                for window in [Window::whole(size), part] {
                    let filter = ResampleFilter::Bicubic;
                    let found = resample_turned(&image, orientation, size, filter, window);
                    let turned = resample_rgb(expected, size, filter, window);
                    assert!(found == turned, "{orientation:?} {size:?}");
                }
            }
        }
        assert!(read >= 12, "{read} were read without a copy");
    }
}
