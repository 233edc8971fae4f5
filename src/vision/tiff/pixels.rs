//! From samples to colors, as Pillow computes them.

use image::{DynamicImage, ImageBuffer, Pixel};

use super::{
    super::color::inverted_cmyk_to_rgb,
    color::{Alpha, Color},
    compression::Compression,
    directory::{self as tag, damaged},
    layout::Layout,
};
use crate::error::{Error, Result};

/// Builds an image of samples with 8 bits.
pub(super) fn narrow(layout: &Layout<'_>, mut samples: Vec<u8>) -> Result<DynamicImage> {
    if layout.alpha == Alpha::Premultiplied {
        divide(&mut samples, layout.kept());
    }
    Ok(match (layout.color, layout.alpha) {
        (Color::Gray { inverted }, Alpha::None) => {
            if inverted {
                samples.iter_mut().for_each(|sample| *sample = !*sample);
            }
            DynamicImage::ImageLuma8(buffer(layout, samples)?)
        }
        (Color::Gray { .. }, _) => DynamicImage::ImageLumaA8(buffer(layout, samples)?),
        (Color::Rgb, Alpha::None) => DynamicImage::ImageRgb8(buffer(layout, samples)?),
        (Color::Rgb, _) => DynamicImage::ImageRgba8(buffer(layout, samples)?),
        (Color::Palette, alpha) => {
            let palette = palette(layout)?;
            let color = |index: u8| palette.get(usize::from(index)).copied().unwrap_or_default();
            match alpha {
                Alpha::None => {
                    let colors = samples.iter().flat_map(|&index| color(index)).collect();
                    DynamicImage::ImageRgb8(buffer(layout, colors)?)
                }
                _ => {
                    let pixels = samples.as_chunks::<2>().0.iter();
                    let colors = pixels.flat_map(|&[index, alpha]| {
                        let [r, g, b] = color(index);
                        [r, g, b, alpha]
                    });
                    DynamicImage::ImageRgba8(buffer(layout, colors.collect())?)
                }
            }
        }
        // libjpeg-turbo has converted it.
        (Color::YCbCr, _) if layout.compression == Compression::Jpeg => {
            DynamicImage::ImageRgb8(buffer(layout, samples)?)
        }
        (Color::YCbCr, _) => {
            let ycbcr_to_rgb = match layout.compression {
                Compression::None => ycbcr_to_rgb,
                _ => compressed_ycbcr_to_rgb,
            };
            let pixels = samples.as_chunks_mut::<3>().0;
            pixels
                .iter_mut()
                .for_each(|pixel| *pixel = ycbcr_to_rgb(*pixel));
            DynamicImage::ImageRgb8(buffer(layout, samples)?)
        }
        (Color::Cmyk, _) => {
            let pixels = samples.as_chunks::<4>().0.iter();
            let colors = pixels.flat_map(|&inks| inverted_cmyk_to_rgb(inks.map(|ink| !ink)));
            DynamicImage::ImageRgb8(buffer(layout, colors.collect())?)
        }
    })
}

/// Builds an image of samples with 16 bits.
pub(super) fn wide(layout: &Layout<'_>, mut samples: Vec<u16>) -> Result<DynamicImage> {
    if layout.color == (Color::Gray { inverted: true }) {
        samples.iter_mut().for_each(|sample| *sample = !*sample);
    }
    Ok(match (layout.color, layout.alpha) {
        (Color::Rgb, Alpha::None) => DynamicImage::ImageRgb16(buffer(layout, samples)?),
        (Color::Rgb, _) => DynamicImage::ImageRgba16(buffer(layout, samples)?),
        (_, Alpha::None) => DynamicImage::ImageLuma16(buffer(layout, samples)?),
        _ => DynamicImage::ImageLumaA16(buffer(layout, samples)?),
    })
}

fn buffer<P: Pixel>(
    layout: &Layout<'_>,
    samples: Vec<P::Subpixel>,
) -> Result<ImageBuffer<P, Vec<P::Subpixel>>> {
    ImageBuffer::from_raw(layout.size.width as u32, layout.size.height as u32, samples)
        .ok_or_else(|| Error::internal("a TIFF has another number of samples than pixels"))
}

/// Divides colors by the alpha that they were multiplied with.
fn divide(samples: &mut [u8], channels: usize) {
    for pixel in samples.chunks_exact_mut(channels) {
        let Some((&mut alpha, color)) = pixel.split_last_mut() else {
            continue;
        };
        for channel in color {
            *channel = match alpha {
                0 => 0,
                _ => (u32::from(*channel) * 255 / u32::from(alpha)).min(255) as u8,
            };
        }
    }
}

/// Reads the palette: all reds, all greens, all blues, with 16 bits each.
fn palette(layout: &Layout<'_>) -> Result<Vec<[u8; 3]>> {
    let colors = 1 << layout.bits;
    let map = layout
        .color_map
        .ok_or_else(|| damaged("it has no palette"))?;
    let values: Vec<u64> = map.numbers()?.take(3 * 256).collect();
    if values.len() < 3 * colors {
        return Err(tag::COLOR_MAP.refused(format!("of {} values", values.len())));
    }
    if values.iter().all(|&value| value < 256) && values.iter().any(|&value| value > 0) {
        return Err(tag::COLOR_MAP.refused("of 8-bit values"));
    }
    let high = |at: usize| (values[at] >> 8).min(255) as u8;
    Ok((0..colors)
        .map(|index| [0, 1, 2].map(|channel| high(channel * colors + index)))
        .collect())
}

/// Converts a pixel with the fixed-point numbers of Pillow's tables.
fn ycbcr_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let part = |factor: f64, value: u8| {
        let distance = f64::from(i32::from(value) - 128);
        (factor * 64.0 * distance + 0.5) as i32
    };
    let add = |part: i32| (i32::from(y) + (part >> 6)).clamp(0, 255) as u8;
    [
        add(part(1.402, cr)),
        add(part(-0.34414, cb) + part(-0.71414, cr)),
        add(part(1.772, cb)),
    ]
}

/// Converts a pixel as libtiff does, by which Pillow reads compressed data.
fn compressed_ycbcr_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let distance = |value: u8| i32::from(value) - 128;
    let (cb, cr) = (distance(cb), distance(cr));
    // The factors of the usual coefficients, times 65,536.
    let add = |part: i32| (i32::from(y) + ((part + 0x8000) >> 16)).clamp(0, 255) as u8;
    [
        add(91_881 * cr),
        add(-22_553 * cb - 46_802 * cr),
        add(116_130 * cb),
    ]
}
