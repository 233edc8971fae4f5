//! JPEG by libjpeg-turbo, the library that Pillow decodes with, so that pixels agree to the bit.

use std::{borrow::Cow, fmt::Display};

use image::metadata::Orientation;
use turbojpeg::{
    Colorspace, Compressor, DecompressHeader, Decompressor, Image, PixelFormat, ScalingFactor,
    Subsamp,
};

use super::{
    DecodeLimits, Decoded, RgbImage, Size,
    jpeg_head::{Frame, Head},
    opened::{MinSize, Opened},
    orientation::turned,
};
use crate::error::{Error, Kind, Result, ResultExt};

/// Number of scans beyond which a progressive file can only be an attack on the decoder's time.
const MAX_SCANS: u32 = 100;

/// Reads and checks the header of a JPEG file. With `min_size` fewer pixels may be decoded: a half,
/// a quarter or an eighth of each side.
pub(super) fn open<'a>(
    bytes: &'a [u8],
    limits: DecodeLimits,
    min_size: Option<MinSize<'_>>,
) -> Result<Opened<'a>> {
    let head = Head::read(bytes);
    let (bytes, mut decoder, header) = read_header(bytes, &head)?;
    let full_size = Size::new(header.width, header.height);
    limits.check(full_size)?;
    if let Some(Frame { precision, .. }) = head.frame()
        && precision != 8
    {
        return Err(undecodable(format_args!(
            "its samples have {precision} bits; send a file with 8 bits a sample"
        )));
    }
    let orientation = head.orientation();
    let scaling = min_size.map_or(ScalingFactor::ONE, |min_size| {
        let min_size = turned(min_size(turned(full_size, orientation)), orientation);
        smallest_scaling(full_size, min_size)
    });
    // Lossless files do not consist of cosines and cannot be scaled: they are decoded whole.
    let scaling = if header.is_lossless || decoder.set_scaling_factor(scaling).is_err() {
        ScalingFactor::ONE
    } else {
        scaling
    };
    let coefficients = full_size.pixels() as f64 * head.coefficient_bytes_per_pixel();
    let header = header.scaled(scaling);
    let bytes_per_pixel = match Samples::of(header) {
        Samples::Rgb => 3,
        Samples::Cmyk => 4 + 3,
        Samples::Gray => 1 + 3,
    };
    let pixels = (header.width * header.height) as u64;
    Ok(Opened {
        full_size,
        orientation,
        memory: pixels * bytes_per_pixel + coefficients as u64,
        decode: Box::new(move || {
            Ok(Decoded {
                image: decode(&bytes, decoder, header)?,
                full_size,
                orientation: Orientation::NoTransforms,
                is_dim: false,
            })
        }),
    })
}

/// What libjpeg-turbo decodes to.
enum Samples {
    Rgb,
    Cmyk,
    Gray,
}

impl Samples {
    fn of(header: DecompressHeader) -> Self {
        match header.colorspace {
            Colorspace::CMYK | Colorspace::YCCK => Self::Cmyk,
            // It converts no colors of a lossless file.
            Colorspace::Gray if header.is_lossless => Self::Gray,
            _ => Self::Rgb,
        }
    }
}

/// Decodes a file to RGB, not yet turned upright.
fn decode(bytes: &[u8], mut decoder: Decompressor, header: DecompressHeader) -> Result<RgbImage> {
    let mut decompress = |format| decompress(&mut decoder, bytes, header, format);
    let pixels = match Samples::of(header) {
        Samples::Rgb => decompress(PixelFormat::RGB)?,
        Samples::Cmyk => {
            let cmyk = decompress(PixelFormat::CMYK)?;
            let cmyk = cmyk.as_chunks::<4>().0;
            cmyk.iter().flat_map(inverted_cmyk_to_rgb).collect()
        }
        Samples::Gray => {
            let gray = decompress(PixelFormat::GRAY)?;
            gray.into_iter().flat_map(|value| [value; 3]).collect()
        }
    };
    RgbImage::from_raw(header.width as u32, header.height as u32, pixels)
        .ok_or_else(|| Error::internal("a decoded JPEG has another size than its header states"))
}

/// Reads the header. The binding takes a warning of libjpeg in a header for an error; a file with
/// one is read without the segments that cause warnings.
fn read_header<'a>(
    bytes: &'a [u8],
    head: &Head<'_>,
) -> Result<(Cow<'a, [u8]>, Decompressor, DecompressHeader)> {
    let new_decoder = || -> Result<Decompressor> {
        let mut decoder = Decompressor::new().internal("libjpeg-turbo")?;
        decoder.set_scan_limit(MAX_SCANS).map_err(failed)?;
        Ok(decoder)
    };
    let mut decoder = new_decoder()?;
    if let Ok(header) = decoder.read_header(bytes) {
        return Ok((Cow::Borrowed(bytes), decoder, header));
    }
    let Some(bytes) = head.without_warnings() else {
        return Err(undecodable(
            "it ends in its header, before any pixels; send the whole file",
        ));
    };
    let mut decoder = new_decoder()?;
    let header = decoder.read_header(&bytes).map_err(failed)?;
    Ok((Cow::Owned(bytes), decoder, header))
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
        Err(error) => Err(failed(error)),
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

fn failed(error: turbojpeg::Error) -> Error {
    let text = error.to_string();
    undecodable(text.strip_prefix(PREFIX).unwrap_or(&text))
}

fn undecodable(reason: impl Display) -> Error {
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
