//! JPEG by libjpeg-turbo, the library that Pillow decodes with, so that pixels agree to the bit.

use image::metadata::Orientation;
use turbojpeg::{
    Colorspace, Compressor, DecompressHeader, Decompressor, Image, PixelFormat, ScalingFactor,
    Subsamp,
};

use super::{
    DecodeLimits, Decoded, RgbImage, Size,
    orientation::{orientation_of, turned},
};
use crate::error::{Error, Kind, Result, ResultExt};

/// Number of scans beyond which a progressive file can only be an attack on the decoder's time.
const MAX_SCANS: u32 = 100;

/// Gives the minimum size to decode to for the upright size of the whole image.
pub(super) type MinSize<'a> = &'a dyn Fn(Size) -> Size;

/// Decodes a JPEG file to RGB, not yet turned upright. With `min_size` the decoder may compute
/// fewer pixels: a half, a quarter or an eighth of each side.
pub(super) fn decode(
    bytes: &[u8],
    limits: DecodeLimits,
    min_size: Option<MinSize<'_>>,
) -> Result<Decoded> {
    let mut decoder = Decompressor::new().internal("libjpeg-turbo")?;
    decoder.set_scan_limit(MAX_SCANS).map_err(undecodable)?;
    let header = decoder.read_header(bytes).map_err(undecodable)?;
    let full_size = Size::new(header.width, header.height);
    limits.check(full_size)?;
    let orientation = orientation(bytes);
    let scaling = min_size.map_or(ScalingFactor::ONE, |min_size| {
        let min_size = turned(min_size(turned(full_size, orientation)), orientation);
        smallest_scaling(full_size, min_size)
    });
    // Lossless files do not consist of cosines and cannot be scaled: they are decoded whole.
    let scaling = if decoder.set_scaling_factor(scaling).is_ok() && !header.is_lossless {
        scaling
    } else {
        ScalingFactor::ONE
    };
    let header = header.scaled(scaling);
    let pixels = match header.colorspace {
        Colorspace::CMYK | Colorspace::YCCK => {
            let cmyk = decompress(&mut decoder, bytes, header, PixelFormat::CMYK)?;
            cmyk.as_chunks::<4>()
                .0
                .iter()
                .flat_map(inverted_cmyk_to_rgb)
                .collect()
        }
        _ => decompress(&mut decoder, bytes, header, PixelFormat::RGB)?,
    };
    let image = RgbImage::from_raw(header.width as u32, header.height as u32, pixels)
        .ok_or_else(|| Error::internal("a decoded JPEG has another size than its header states"))?;
    Ok(Decoded {
        image,
        full_size,
        orientation,
    })
}

/// Returns the strongest reduction after which an image of `full_size` still has `min_size`.
fn smallest_scaling(full_size: Size, min_size: Size) -> ScalingFactor {
    [
        ScalingFactor::ONE_EIGHTH,
        ScalingFactor::ONE_QUARTER,
        ScalingFactor::ONE_HALF,
    ]
    .into_iter()
    .find(|scaling| {
        min_size.fits(Size::new(
            scaling.scale(full_size.width),
            scaling.scale(full_size.height),
        ))
    })
    .unwrap_or(ScalingFactor::ONE)
}

/// Encodes an image for people to look at, with colors at half the resolution.
pub(super) fn encode(image: &RgbImage, quality: i32) -> Result<Vec<u8>> {
    let Size { width, height } = Size::of(image);
    let format = PixelFormat::RGB;
    let pixels = Image {
        pixels: image.as_raw().as_slice(),
        width,
        pitch: width * format.size(),
        height,
        format,
    };
    let mut encoder = Compressor::new().internal("encoding JPEG")?;
    encoder.set_quality(quality).internal("encoding JPEG")?;
    encoder
        .set_subsamp(Subsamp::Sub2x2)
        .internal("encoding JPEG")?;
    encoder.compress_to_vec(pixels).internal("encoding JPEG")
}

fn decompress(
    decoder: &mut Decompressor,
    bytes: &[u8],
    header: DecompressHeader,
    format: PixelFormat,
) -> Result<Vec<u8>> {
    let pitch = header.width * format.size();
    let mut pixels = vec![0; pitch * header.height];
    let image = Image {
        pixels: pixels.as_mut_slice(),
        width: header.width,
        pitch,
        height: header.height,
        format,
    };
    match decoder.decompress(bytes, image) {
        Ok(()) => Ok(pixels),
        Err(error) if is_harmless(&error.to_string(), bytes) => Ok(pixels),
        Err(error) => Err(undecodable(error)),
    }
}

/// Whether a message is one of libjpeg's warnings, after which decoding goes on and Pillow shows
/// the image. Pillow rejects only files that end early, and so does this function.
fn is_harmless(message: &str, bytes: &[u8]) -> bool {
    const WARNINGS: [&str; 5] = [
        "Corrupt JPEG data: ",
        "Inconsistent progression sequence",
        "Invalid SOS parameters for sequential JPEG",
        "Unknown Adobe color transform code",
        "Warning: unknown JFIF revision number",
    ];
    let message = message.strip_prefix(PREFIX).unwrap_or(message);
    let ends_with_marker = || {
        let content = bytes
            .iter()
            .rposition(|&byte| !matches!(byte, 0 | b'\r' | b'\n' | b' '));
        content.is_some_and(|last| bytes[..=last].ends_with(&[0xFF, 0xD9]))
    };
    // Only the last of several warnings is reported, so a file that ends early may come with any.
    WARNINGS.iter().any(|warning| message.starts_with(warning))
        && (!message.contains("premature") || ends_with_marker())
}

/// Prefix that the binding puts in front of libjpeg-turbo's messages.
const PREFIX: &str = "TurboJPEG error: ";

fn undecodable(error: turbojpeg::Error) -> Error {
    let text = error.to_string();
    let reason = text.strip_prefix(PREFIX).unwrap_or(&text);
    let detail = format!("the JPEG cannot be decoded: {reason}");
    Error::new(Kind::UndecodableImage, detail)
}

/// Converts a pixel. Adobe stores CMYK inverted, so each value is already the share of light that
/// passes.
fn inverted_cmyk_to_rgb(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    let black = i32::from(k);
    [c, m, y].map(|ink| {
        // Pillow's rounding division by 255 of (255 − ink)·black, taken from black.
        let product = (255 - i32::from(ink)) * black + 128;
        (black - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

/// Reads the orientation from the EXIF block, which is a segment in front of the first scan.
fn orientation(bytes: &[u8]) -> Orientation {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xFF, marker, tail @ ..] = rest {
        match (marker, tail) {
            (0xFF, _) => rest = &rest[1..],
            (0xDA | 0xD9, _) => break,
            (_, [high, low, ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let Some(segment) = tail.get(2..length.max(2)) else {
                    break;
                };
                if *marker == 0xE1
                    && let Some(exif) = segment.strip_prefix(b"Exif\0\0")
                {
                    return orientation_of(exif);
                }
                rest = &tail[length.max(2).min(tail.len())..];
            }
            _ => break,
        }
    }
    Orientation::NoTransforms
}
