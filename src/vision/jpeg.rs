//! JPEG by libjpeg-turbo, the library that Pillow decodes with, so that pixels agree to the bit.

use image::metadata::Orientation;
use turbojpeg::{
    Colorspace, Compressor, DecompressHeader, Decompressor, Image, PixelFormat, ScalingFactor,
    Subsamp,
};

use super::{
    RgbImage,
    decode::{DecodeLimits, orientation_of, swaps_sides},
};
use crate::error::{Error, Kind, Result};

/// Scans of a progressive file beyond which it can only be an attack on the decoder's time.
const MAX_SCANS: u32 = 100;

/// A size below which a file is not to be decoded, given the upright width and height of the whole.
pub(super) type Least<'a> = &'a dyn Fn(usize, usize) -> (usize, usize);

/// Decodes a JPEG file to RGB, not yet turned upright, and says how it is to be turned and the size
/// of the whole. With `least` the decoder computes fewer pixels: a half, a quarter or an eighth of
/// each side.
pub(super) fn decode(
    bytes: &[u8],
    limits: DecodeLimits,
    least: Option<Least<'_>>,
) -> Result<(RgbImage, Orientation, (usize, usize))> {
    let mut decoder =
        Decompressor::new().map_err(|error| Error::internal(format!("libjpeg-turbo: {error}")))?;
    decoder.set_scan_limit(MAX_SCANS).map_err(undecodable)?;
    let header = decoder.read_header(bytes).map_err(undecodable)?;
    limits.check(header.width as u64, header.height as u64)?;
    let (orientation, whole) = (orientation(bytes), (header.width, header.height));
    let scaling = least.map_or(ScalingFactor::ONE, |least| {
        let upright = if swaps_sides(orientation) {
            (whole.1, whole.0)
        } else {
            whole
        };
        let least = least(upright.0, upright.1);
        let least = if swaps_sides(orientation) {
            (least.1, least.0)
        } else {
            least
        };
        let enough = |scaling: &ScalingFactor| {
            scaling.scale(header.width) >= least.0 && scaling.scale(header.height) >= least.1
        };
        let smaller = [
            ScalingFactor::ONE_EIGHTH,
            ScalingFactor::ONE_QUARTER,
            ScalingFactor::ONE_HALF,
        ];
        smaller
            .into_iter()
            .find(enough)
            .unwrap_or(ScalingFactor::ONE)
    });
    // Files without loss are not made of cosines and cannot be scaled: they are decoded whole.
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
        .ok_or_else(|| Error::internal("a decoded JPEG has another size than its header said"))?;
    Ok((image, orientation, whole))
}

/// Encodes a picture for people to look at, with halved colors.
pub(super) fn encode(image: &RgbImage, quality: i32) -> Result<Vec<u8>> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let format = PixelFormat::RGB;
    let pixels = Image {
        pixels: image.as_raw().as_slice(),
        width,
        pitch: width * format.size(),
        height,
        format,
    };
    let failed = |error: turbojpeg::Error| Error::internal(format!("encoding JPEG: {error}"));
    let mut encoder = Compressor::new().map_err(failed)?;
    encoder.set_quality(quality).map_err(failed)?;
    encoder.set_subsamp(Subsamp::Sub2x2).map_err(failed)?;
    encoder.compress_to_vec(pixels).map_err(failed)
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

/// libjpeg's warnings, after which it goes on and Pillow shows the picture; only a file that ends
/// early is refused there, and here.
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
    // Of several warnings only the last is told, so a file without its end may come with any.
    WARNINGS.iter().any(|warning| message.starts_with(warning))
        && (!message.contains("premature") || ends_with_marker())
}

/// What the binding puts in front of libjpeg-turbo's messages.
const PREFIX: &str = "TurboJPEG error: ";

fn undecodable(error: turbojpeg::Error) -> Error {
    let text = error.to_string();
    let reason = text.strip_prefix(PREFIX).unwrap_or(&text);
    Error::new(
        Kind::UndecodableImage,
        format!("the JPEG cannot be decoded: {reason}"),
    )
}

/// Adobe stores CMYK inverted, so each value is already the share of light that passes.
fn inverted_cmyk_to_rgb(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    let black = i32::from(k);
    [c, m, y].map(|ink| {
        // Pillow's rounding division by 255 of (255 − ink)·black, taken from black.
        let product = (255 - i32::from(ink)) * black + 128;
        (black - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

/// The orientation in the EXIF block, found by walking the segments in front of the first scan.
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
