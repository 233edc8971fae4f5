//! What the decoder of BMP files (image 0.25) shows differently from Pillow.

use std::borrow::Cow;

use image::{DynamicImage, RgbImage};

/// Moves the start of the pixels behind the palette, where it states that they begin with it.
pub(super) fn repaired(file: &[u8]) -> Cow<'_, [u8]> {
    let field = |at| number::<4>(file, at).unwrap_or_default();
    let palette = field(14).saturating_add(14);
    let bits = number::<2>(file, 28).unwrap_or_default();
    if field(10) != palette || field(14) < 40 || bits > 8 {
        return Cow::Borrowed(file);
    }
    let colors = match field(46) {
        0 => 1 << bits,
        colors => colors,
    };
    let start = palette.saturating_add(colors.saturating_mul(4));
    let mut file = file.to_vec();
    file[10..14].copy_from_slice(&start.to_le_bytes());
    Cow::Owned(file)
}

/// Corrects an image that was decoded from a repaired file.
///
/// * Samples of 5 and 6 bits are scaled to 255 and rounded down; the bit that is left of 16 is not
///   alpha.
/// * Pixels that run-length encoding skips have the first color of the palette.
pub(super) fn correct(file: &[u8], image: DynamicImage) -> DynamicImage {
    // A shorter header has other fields, and none of these kinds of pixels.
    if number::<4>(file, 14).is_none_or(|length| length < 40) {
        return image;
    }
    let bits = number::<2>(file, 28);
    let compression = number::<4>(file, 30);
    match (bits, compression) {
        (Some(16), Some(compression)) => {
            let mask = |at| number::<4>(file, at).unwrap_or_default();
            let masks = match compression {
                0 => [0x7C00, 0x3E0, 0x1F],
                _ => [mask(54), mask(58), mask(62)],
            };
            let levels = match masks {
                [0x7C00, 0x3E0, 0x1F] => [31; 3],
                [0xF800, 0x7E0, 0x1F] => [31, 63, 31],
                _ => return image,
            };
            DynamicImage::ImageRgb8(rescaled(image.into_rgb8(), levels))
        }
        (Some(4 | 8), Some(1 | 2)) => {
            let mut image = image.into_rgb8();
            fill_skipped(file, compression == Some(2), &mut image);
            DynamicImage::ImageRgb8(image)
        }
        _ => image,
    }
}

/// Reads a number of `N` bytes.
fn number<const N: usize>(file: &[u8], at: usize) -> Option<u32> {
    let bytes = file.get(at..at + N)?;
    let append = |number, &byte: &u8| number << 8 | u32::from(byte);
    Some(bytes.iter().rev().fold(0, append))
}

/// Scales samples of which each channel has so many levels, rounded down and not to the nearest.
fn rescaled(mut image: RgbImage, levels: [u32; 3]) -> RgbImage {
    for pixel in image.pixels_mut() {
        for (sample, levels) in pixel.0.iter_mut().zip(levels) {
            let level = (u32::from(*sample) * levels + 127) / 255;
            *sample = (level * 255 / levels) as u8;
        }
    }
    image
}

/// Gives skipped pixels the first color of the palette.
fn fill_skipped(file: &[u8], four_bits: bool, image: &mut RgbImage) {
    let at = |start: u32| file.get(start as usize..).unwrap_or_default();
    let palette = 14 + number::<4>(file, 14).unwrap_or_default();
    let &[blue, green, red, ..] = at(palette) else {
        return;
    };
    let offset = number::<4>(file, 10).unwrap_or_default();
    let (width, height) = (image.width() as usize, image.height() as usize);
    let is_upside_down = number::<4>(file, 22).is_none_or(|height| height as i32 >= 0);
    let written = written(at(offset), four_bits, width, height);
    let pixels = image.as_chunks_mut::<3>().0;
    for (y, row) in pixels.chunks_exact_mut(width).enumerate() {
        let y = if is_upside_down { height - 1 - y } else { y };
        for (x, pixel) in row.iter_mut().enumerate() {
            if !written.get(y * width + x).is_some_and(|&written| written) {
                *pixel = [red, green, blue];
            }
        }
    }
}

/// Returns for each pixel whether run-length encoding writes it, in the order of the file. What is
/// behind the end is not.
fn written(mut data: &[u8], four_bits: bool, width: usize, height: usize) -> Vec<bool> {
    let mut written = vec![false; width * height];
    let (mut x, mut y) = (0, 0);
    while let Some((&[count, value], rest)) = data.split_first_chunk()
        && y < height
    {
        data = rest;
        let length = match (count, value) {
            (0, 0) => {
                (x, y) = (0, y + 1);
                continue;
            }
            (0, 1) => break,
            (0, 2) => {
                let [right, down] = data.first_chunk().copied().unwrap_or_default();
                data = data.get(2..).unwrap_or_default();
                (x, y) = (x + usize::from(right), y + usize::from(down));
                continue;
            }
            (0, count) => {
                let bytes = match four_bits {
                    true => usize::from(count).div_ceil(2),
                    false => usize::from(count),
                };
                data = data.get(bytes.next_multiple_of(2)..).unwrap_or_default();
                count
            }
            (count, _) => count,
        };
        // A run ends with its row.
        let end = width.min(x + usize::from(length));
        written[y * width..][x.min(end)..end].fill(true);
        x = end;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_with_a_core_header_stays() {
        // Where a longer header states 16 bits a pixel, this one has its palette.
        let mut file = vec![0; 80];
        file[14] = 12;
        file[28] = 16;
        let gray = RgbImage::from_pixel(2, 2, image::Rgb([100; 3]));
        let corrected = |file: &[u8]| correct(file, gray.clone().into()).into_rgb8();
        assert_eq!(corrected(&file), gray);
        file[14] = 40;
        assert_ne!(corrected(&file), gray);
    }

    #[test]
    fn skipped_pixels_are_found() {
        // Two of 3 pixels, the end of the row, one right and one down, three literal pixels.
        let data = [2, 7, 0, 0, 0, 2, 1, 1, 0, 3, 1, 2, 3, 0, 0, 1];
        let rows = written(&data, false, 4, 4);
        let rows: Vec<String> = rows
            .chunks(4)
            .map(|row| row.iter().map(|&set| if set { '#' } else { '.' }).collect())
            .collect();
        assert_eq!(rows, ["##..", "....", ".###", "...."]);
    }
}
