//! From the bytes of an image file to an upright RGB image.
//!
//! The size in the header is checked against the limits before any pixel is allocated.

use std::{borrow::Cow, io::Cursor};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};

#[cfg(feature = "heic")]
use super::heic;
use super::{
    Background, DecodeLimits, Decoded, Levels, RgbImage, Size, Transform, avif, bmp,
    formats::{self, Codec, Format, Identified, identify},
    gif, jpeg,
    opened::{MinSize, Opened, Samples},
    orientation::{is_quarter, turned},
    png::Png,
    pnm, tiff,
    undecodable::undecodable,
    webp,
};
use crate::error::{Error, Kind, Result};

/// How a file is turned into RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeOptions {
    /// Whether the image is turned upright as its EXIF data say. TIFF files always are, as in
    /// Pillow.
    pub exif: bool,
    /// Color behind transparent pixels.
    pub background: Background,
    /// Range of samples with 16 bits.
    pub levels: Levels,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            exif: true,
            background: Background::default(),
            levels: Levels::default(),
        }
    }
}

/// Decodes a file of one of the [`FORMATS`](super::FORMATS) to RGB; of a GIF, the first frame. The
/// format is detected from the bytes, not from a name.
///
/// # Errors
/// [`Kind::UndecodableImage`] for bytes that are none of these formats, or damaged;
/// [`Kind::TooLarge`] above a limit.
pub fn decode(bytes: &[u8], options: DecodeOptions, limits: DecodeLimits) -> Result<RgbImage> {
    decode_whole(bytes, options, limits).map(Decoded::into_upright)
}

/// Decodes like [`decode`], for a [`Transform`], which turns the image upright.
pub fn decode_whole(bytes: &[u8], options: DecodeOptions, limits: DecodeLimits) -> Result<Decoded> {
    open(bytes, options, limits, None)?.decode()
}

/// Decodes like [`decode_whole`], but a large JPEG only to a size that is at least the one
/// `transform` resizes to. This saves most of the work and changes the pixels a little.
pub fn decode_fast(
    bytes: &[u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    transform: &Transform,
) -> Result<Decoded> {
    open(bytes, options, limits, Some(&min_size(transform)))?.decode()
}

/// Returns the memory that decoding and resizing a file takes, in bytes; with `fast` that of
/// [`decode_fast`]. Reads the header only.
///
/// # Errors
/// Those of [`decode`] that show in the header.
pub fn decoding_bytes(
    bytes: &[u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    transform: &Transform,
    fast: bool,
) -> Result<u64> {
    let min_size = min_size(transform);
    let opened = open(bytes, options, limits, fast.then_some(&min_size))?;
    let size = turned(opened.full_size, opened.orientation);
    Ok(opened.memory + transform.resizing_bytes(size, opened.orientation))
}

/// Returns the size of an image that is turned as its orientation says. Reads the header only.
///
/// # Errors
/// Those of [`decode`] that show in the header.
pub fn upright_size(bytes: &[u8], options: DecodeOptions, limits: DecodeLimits) -> Result<Size> {
    let opened = open(bytes, options, limits, None)?;
    Ok(turned(opened.full_size, opened.orientation))
}

/// Returns the memory that [`decode_fast`] and turning the image upright take, in bytes.
pub fn upright_bytes(
    bytes: &[u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    transform: &Transform,
) -> Result<u64> {
    let min_size = min_size(transform);
    let opened = open(bytes, options, limits, Some(&min_size))?;
    let copy = match is_quarter(opened.orientation) {
        true => 3 * opened.full_size.pixels(),
        false => 0,
    };
    let size = turned(opened.full_size, opened.orientation);
    Ok(opened.memory + copy + transform.resizing_bytes(size, opened.orientation))
}

fn min_size(transform: &Transform) -> impl Fn(Size) -> Size {
    // Without a plan the image is decoded at full size, and resizing it returns the error.
    |full| transform.plan(full).map_or(full, |plan| plan.resized)
}

fn open<'a>(
    bytes: &'a [u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    min_size: Option<MinSize<'_>>,
) -> Result<Opened<'a>> {
    if bytes.is_empty() {
        return Err(rejected("the image is empty (0 bytes)"));
    }
    let format = match identify(bytes) {
        Identified::Readable(format) => format,
        Identified::Known(kind) => {
            return Err(rejected(format!(
                "the file is {}, which cannot be read; {}",
                kind.name, kind.advice
            )));
        }
        Identified::Unknown => {
            return Err(rejected(format!(
                "{} are not an image; send {}",
                describe(bytes),
                formats::names()
            )));
        }
    };
    let DecodeOptions {
        background, levels, ..
    } = options;
    let mut opened = match format.codec {
        Codec::Jpeg => jpeg::open(bytes, limits, min_size)?,
        Codec::Avif => avif::open(bytes, limits)?.with_colors(background, levels),
        #[cfg(feature = "heic")]
        Codec::Heic => heic::open(bytes, limits)?.with_colors(background, levels),
        Codec::Gif => gif::open(bytes, limits)?.with_colors(background, levels),
        Codec::Tiff => tiff::open(bytes, limits)?.with_colors(background, levels),
        Codec::Image(codec) => {
            open_other(bytes, format, codec, limits)?.with_colors(background, levels)
        }
    };
    // Pillow turns a TIFF whenever it loads one.
    if !options.exif && format.codec != Codec::Tiff {
        opened.orientation = Orientation::NoTransforms;
    }
    Ok(opened)
}

fn open_other<'a>(
    bytes: &'a [u8],
    format: &'static Format,
    codec: ImageFormat,
    limits: DecodeLimits,
) -> Result<Samples<'a>> {
    let failed = move |error: image::ImageError| undecodable(format, error);
    let decoder_of = move |bytes: Cow<'a, [u8]>| {
        let reader = ImageReader::with_format(Cursor::new(bytes), codec);
        reader.into_decoder().map_err(failed)
    };
    let mut head = Cow::Borrowed(bytes);
    let mut png = None;
    let mut orientation = Orientation::NoTransforms;
    match codec {
        ImageFormat::Png => {
            let read = Png::read(bytes, limits)?;
            orientation = read.orientation();
            head = Cow::Owned(read.head());
            png = Some(read);
        }
        ImageFormat::WebP => orientation = webp::check(bytes)?,
        ImageFormat::Bmp => head = bmp::repaired(bytes),
        ImageFormat::Pnm => pnm::check(bytes)?,
        _ => {}
    }
    let decoder = decoder_of(head)?;
    let (width, height) = decoder.dimensions();
    let full_size = Size::new(width as usize, height as usize);
    limits.check(full_size)?;
    let decoded_bytes = decoder.total_bytes();
    limits.check_depth(full_size.pixels(), decoded_bytes)?;
    let working_bytes = match codec {
        // Planes of brightness, colors and opacity, or a whole image with four bytes a pixel.
        ImageFormat::WebP => 8 * full_size.pixels(),
        // A repaired file, and a mark for each pixel.
        ImageFormat::Bmp => bytes.len() as u64 + full_size.pixels(),
        // A copy of the file.
        _ => bytes.len() as u64,
    };
    Ok(Samples {
        full_size,
        orientation,
        decoded_bytes,
        working_bytes,
        read: Box::new(move || {
            let mut decoder = match png {
                Some(png) => decoder_of(Cow::Owned(png.with_pixels()))?,
                None => decoder,
            };
            let mut allocation = image::Limits::default();
            // Twice what this image needs, and some room: a frame inside may claim to be larger
            // than the image.
            allocation.max_alloc = Some(decoded_bytes.saturating_mul(2).saturating_add(1 << 24));
            decoder.set_limits(allocation).map_err(failed)?;
            let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
            Ok(match codec {
                ImageFormat::Bmp => bmp::correct(&bmp::repaired(bytes), image),
                _ => image,
            })
        }),
    })
}

fn rejected(detail: impl Into<String>) -> Error {
    Error::new(Kind::UndecodableImage, detail)
}

/// Describes a file by its length and first bytes, as text if they are.
fn describe(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(16)];
    let is_plain = |c: char| !c.is_control() || c.is_ascii_whitespace();
    let shown = match std::str::from_utf8(start) {
        Ok(text) if text.chars().all(is_plain) => format!("{text:?}"),
        _ => {
            let hex: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
            hex.join(" ")
        }
    };
    format!("the {} bytes that begin with {shown}", bytes.len())
}
