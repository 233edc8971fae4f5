//! Class masks: PNG files whose pixels are classes.

use std::io::Cursor;

use png::{BitDepth, Decoder, Limits, Transformations};

use super::LabelImage;
use crate::{
    error::{Error, Kind, Result},
    vision::{DecodeLimits, Identified, Size, identify},
};

/// Value of a pixel of no class, which is neither learned nor counted.
pub const IGNORED: u8 = 255;

/// Returns the size of a class mask, and the memory that reading it takes, in bytes. Reads the
/// header only.
///
/// # Errors
/// [`Kind::UndecodableImage`] for a file that is no PNG, or one in color; [`Kind::TooLarge`] for
/// more pixels than `limits` allow.
pub fn class_mask_size(file: &[u8], limits: DecodeLimits) -> Result<(Size, u64)> {
    let reader = open(file)?;
    let size = size_of(reader.info(), limits)?;
    let samples = reader.output_buffer_size().unwrap_or(usize::MAX);
    Ok((size, size.pixels().saturating_add(samples as u64)))
}

/// Reads a class mask: a PNG with a palette, whose indices are the classes, or in grey, whose
/// values are. An RGB file whose three channels are equal counts as grey.
///
/// # Errors
/// As [`class_mask_size`], and for a file that is damaged.
pub fn class_mask(file: &[u8], limits: DecodeLimits) -> Result<LabelImage> {
    let mut reader = open(file)?;
    let size = size_of(reader.info(), limits)?;
    let length = reader.output_buffer_size();
    let length = length.ok_or_else(|| undecodable("it is too large"))?;
    let mut bytes = vec![0; length];
    let frame = reader.next_frame(&mut bytes).map_err(undecodable)?;
    let (depth, channels) = (frame.bit_depth, frame.color_type.samples());
    let mut labels = Vec::with_capacity(size.width * size.height);
    for row in bytes.chunks(frame.line_size).take(size.height) {
        read_row(row, depth, channels, size.width, &mut labels)?;
    }
    Ok(LabelImage::new(size, labels))
}

fn open(file: &[u8]) -> Result<png::Reader<Cursor<&[u8]>>> {
    match identify(file) {
        Identified::Readable(format) if format.name != "PNG" => {
            let name = format.name;
            let detail = format!("this is a {name} file, and a mask is a PNG, which loses nothing");
            return Err(undecodable(detail));
        }
        _ => {}
    }
    let limits = Limits { bytes: 1 << 24 };
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.read_info().map_err(undecodable)
}

fn size_of(info: &png::Info<'_>, limits: DecodeLimits) -> Result<Size> {
    let size = Size::new(info.width as usize, info.height as usize);
    let check = limits.check(size);
    check.map_err(|error| error.context("the mask"))?;
    Ok(size)
}

/// Reads a row of samples.
fn read_row(
    row: &[u8],
    depth: BitDepth,
    channels: usize,
    width: usize,
    labels: &mut Vec<u8>,
) -> Result<()> {
    let bits = depth as usize;
    let sample = |index: usize| -> Result<u8> {
        Ok(match depth {
            BitDepth::Eight => row[index],
            BitDepth::Sixteen => match row[2 * index] {
                0 => row[2 * index + 1],
                _ => {
                    return Err(undecodable(
                        "a pixel is above 255, and classes are 0 to 254",
                    ));
                }
            },
            _ => {
                let bit = index * bits;
                let mask = (1_u8 << bits) - 1;
                row[bit / 8] >> (8 - bits - bit % 8) & mask
            }
        })
    };
    for pixel in 0..width {
        let value = sample(pixel * channels)?;
        // Of grey with alpha, alpha is not looked at.
        if channels >= 3
            && (1..3).any(|channel| sample(pixel * channels + channel).ok() != Some(value))
        {
            return Err(undecodable(
                "it is in color; save it with a palette or in grey, so that the value of a pixel \
                 is its class",
            ));
        }
        labels.push(value);
    }
    Ok(())
}

fn undecodable(what: impl std::fmt::Display) -> Error {
    let detail = format!("the mask cannot be read: {what}");
    Error::new(Kind::UndecodableImage, detail)
}

#[cfg(test)]
mod tests {
    use png::ColorType;

    use super::*;

    fn file(color: ColorType, depth: BitDepth, width: u32, rows: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let line = (width as usize * color.samples() * depth as usize).div_ceil(8);
        let mut encoder = png::Encoder::new(&mut bytes, width, (rows.len() / line) as u32);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette((0..=255).flat_map(|_| [9, 8, 7]).collect::<Vec<u8>>());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(rows).unwrap();
        drop(writer);
        bytes
    }

    fn read(file: &[u8]) -> Result<Vec<u8>> {
        Ok(class_mask(file, DecodeLimits::default())?.labels().to_vec())
    }

    #[test]
    fn samples_are_classes_whatever_their_depth() {
        use {BitDepth as Bits, ColorType as Color};
        for (color, depth, width, rows, expected) in [
            (
                Color::Indexed,
                Bits::Eight,
                2,
                &[0, 3, 255, 7][..],
                &[0, 3, 255, 7][..],
            ),
            (Color::Grayscale, Bits::Eight, 2, &[0, 1], &[0, 1]),
            (
                Color::Grayscale,
                Bits::One,
                3,
                &[0b1010_0000, 0b0110_0000],
                &[1, 0, 1, 0, 1, 1],
            ),
            (Color::Indexed, Bits::Two, 3, &[0b0001_1100], &[0, 1, 3]),
            (Color::Indexed, Bits::Four, 3, &[0x1f, 0x20], &[1, 15, 2]),
            (
                Color::Grayscale,
                Bits::Sixteen,
                2,
                &[0, 5, 0, 255],
                &[5, 255],
            ),
            (Color::Rgb, Bits::Eight, 2, &[1, 1, 1, 2, 2, 2], &[1, 2]),
            (
                Color::GrayscaleAlpha,
                Bits::Eight,
                2,
                &[1, 255, 2, 0],
                &[1, 2],
            ),
        ] {
            let file = file(color, depth, width, rows);
            assert_eq!(read(&file).unwrap(), expected, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn colors_large_values_and_other_files_are_refused() {
        let color = file(ColorType::Rgb, BitDepth::Eight, 1, &[1, 2, 1]);
        assert!(read(&color).unwrap_err().detail().contains("in color"));
        let large = file(ColorType::Grayscale, BitDepth::Sixteen, 1, &[1, 0]);
        assert!(read(&large).unwrap_err().detail().contains("above 255"));
        let jpeg = read(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00").unwrap_err();
        assert!(jpeg.detail().contains("JPEG"), "{jpeg}");
        let mut cut = file(ColorType::Grayscale, BitDepth::Eight, 8, &[1; 64]);
        cut.truncate(60);
        assert_eq!(read(&cut).unwrap_err().kind(), Kind::UndecodableImage);
        let small = DecodeLimits {
            max_pixels: 3,
            ..DecodeLimits::default()
        };
        let four = file(ColorType::Grayscale, BitDepth::Eight, 2, &[0; 4]);
        let error = class_mask_size(&four, small).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
    }
}
