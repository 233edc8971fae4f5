//! From the bytes of an image file to an upright RGB image.
//!
//! The size in the header is checked against the limits before any pixel is allocated.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};

use super::{
    DecodeLimits, Decoded, RgbImage, Size, Transform, bmp,
    formats::{self, Codec, Format, Identified, identify},
    gif, jpeg,
    orientation::orientation_of,
    tiff, webp,
};
use crate::{
    error::{Error, Kind, Result},
    names::option_enum,
};

option_enum! {
    /// Color behind transparent pixels.
    #[derive(Default)]
    pub enum Background {
        /// White.
        #[default]
        White,
        /// Black.
        Black,
        /// None: transparency is ignored and the stored colors are used, as Pillow's
        /// `convert("RGB")` does.
        Ignore,
    }
}

/// How a file is turned into RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeOptions {
    /// Whether the image is turned upright as its EXIF data say. TIFF files always are, as in
    /// Pillow.
    pub exif: bool,
    /// Color behind transparent pixels.
    pub background: Background,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            exif: true,
            background: Background::White,
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
    decode_at_least(bytes, options, limits, None).map(|decoded| decoded.image)
}

/// Decodes like [`decode`], but a large JPEG only to a size that is at least the one `transform`
/// resizes to. This saves most of the work and changes the pixels a little.
pub fn decode_fast(
    bytes: &[u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    transform: &Transform,
) -> Result<Decoded> {
    // Without a plan the image is decoded at full size; the error comes when it is resized.
    let min_size = |full| transform.plan(full).map_or(full, |plan| plan.resized);
    decode_at_least(bytes, options, limits, Some(&min_size))
}

fn decode_at_least(
    bytes: &[u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    min_size: Option<jpeg::MinSize<'_>>,
) -> Result<Decoded> {
    if bytes.is_empty() {
        return Err(undecodable("the image is empty (0 bytes)"));
    }
    let format = match identify(bytes) {
        Identified::Readable(format) => format,
        Identified::Known(kind) => {
            return Err(undecodable(format!(
                "the file is {}, which cannot be read; {}",
                kind.name, kind.advice
            )));
        }
        Identified::Unknown => {
            return Err(undecodable(format!(
                "{} are not an image; send {}",
                describe(bytes),
                formats::names()
            )));
        }
    };
    let decoded = match format.codec {
        Codec::Jpeg => jpeg::decode(bytes, limits, min_size)?,
        Codec::Gif => {
            let image = gif::decode(bytes, limits)?;
            finish(image, Orientation::NoTransforms, options.background)
        }
        Codec::Tiff => {
            let (image, orientation) = tiff::decode(bytes, limits)?;
            finish(image, orientation, options.background)
        }
        _ => decode_other(bytes, format, options.background, limits)?,
    };
    // Pillow turns a TIFF whenever it loads one.
    if options.exif || format.codec == Codec::Tiff {
        Ok(decoded.upright())
    } else {
        Ok(decoded)
    }
}

fn decode_other(
    bytes: &[u8],
    format: &Format,
    background: Background,
    limits: DecodeLimits,
) -> Result<Decoded> {
    let failed =
        |error: image::ImageError| undecodable(format!("the {format} cannot be decoded: {error}"));
    let mut exif = None;
    let bytes = match format.codec {
        Codec::Bmp => &bmp::repaired(bytes),
        _ => bytes,
    };
    match format.codec {
        Codec::Png => check_palette(bytes)?,
        Codec::WebP => exif = webp::check(bytes)?,
        _ => {}
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), image_format(format.codec))
        .into_decoder()
        .map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check(Size::new(width as usize, height as usize))?;
    let decoded_bytes = decoder.total_bytes();
    limits.check_depth(u64::from(width) * u64::from(height), decoded_bytes)?;
    let mut allocation = image::Limits::default();
    // Twice what this image needs, and some room: a frame inside may claim to be larger than the
    // image.
    allocation.max_alloc = Some(decoded_bytes.saturating_mul(2).saturating_add(1 << 24));
    decoder.set_limits(allocation).map_err(failed)?;
    let orientation = match format.codec {
        Codec::WebP => exif.map_or(Orientation::NoTransforms, orientation_of),
        Codec::Png => decoder
            .exif_metadata()
            .ok()
            .flatten()
            .map_or(Orientation::NoTransforms, |exif| orientation_of(&exif)),
        _ => decoder.orientation().unwrap_or(Orientation::NoTransforms),
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if format.codec == Codec::Bmp {
        image = bmp::correct(bytes, image);
    }
    Ok(finish(image, orientation, background))
}

fn finish(image: DynamicImage, orientation: Orientation, background: Background) -> Decoded {
    let image = to_rgb(image, background);
    Decoded {
        full_size: Size::of(&image),
        image,
        orientation,
    }
}

/// The name of a format in the `image` crate.
fn image_format(codec: Codec) -> ImageFormat {
    match codec {
        Codec::Jpeg => ImageFormat::Jpeg,
        Codec::Png => ImageFormat::Png,
        Codec::WebP => ImageFormat::WebP,
        Codec::Gif => ImageFormat::Gif,
        Codec::Bmp => ImageFormat::Bmp,
        Codec::Tiff => ImageFormat::Tiff,
    }
}

/// Rejects a PNG whose palette does not consist of whole colors: the decoder (png 0.18) panics on
/// it.
fn check_palette(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        match &head[4..] {
            b"PLTE" if !length.is_multiple_of(3) => {
                return Err(undecodable(format!(
                    "the PNG cannot be decoded: its palette has {length} bytes, no multiple of 3"
                )));
            }
            b"IDAT" => break,
            _ => {}
        }
        // A checksum ends each chunk.
        rest = after.get(length.saturating_add(4)..).unwrap_or_default();
    }
    Ok(())
}

/// Converts to RGB: 16-bit samples keep their high byte, as in Pillow, and transparent pixels are
/// blended with the background.
fn to_rgb(image: DynamicImage, background: Background) -> RgbImage {
    let high = |sample: u16| (sample >> 8) as u8;
    let gray = |value: u8, alpha: u8| [value, value, value, alpha];
    let (width, height) = (image.width(), image.height());
    let over = |pixels: &mut dyn Iterator<Item = [u8; 4]>| {
        let mut out = Vec::with_capacity(width as usize * height as usize * 3);
        pixels.for_each(|pixel| out.extend_from_slice(&blend(pixel, background)));
        RgbImage::from_raw(width, height, out).expect("one pixel in, one pixel out")
    };
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma16(image) => {
            over(&mut image.pixels().map(|p| gray(high(p[0]), 255)))
        }
        DynamicImage::ImageRgb16(image) => over(&mut image.pixels().map(|p| {
            let [r, g, b] = p.0.map(high);
            [r, g, b, 255]
        })),
        DynamicImage::ImageLumaA8(image) => over(&mut image.pixels().map(|p| gray(p[0], p[1]))),
        DynamicImage::ImageRgba8(image) => over(&mut image.pixels().map(|p| p.0)),
        DynamicImage::ImageLumaA16(image) => {
            over(&mut image.pixels().map(|p| gray(high(p[0]), high(p[1]))))
        }
        DynamicImage::ImageRgba16(image) => over(&mut image.pixels().map(|p| p.0.map(high))),
        other => other.into_rgb8(),
    }
}

fn blend([r, g, b, alpha]: [u8; 4], background: Background) -> [u8; 3] {
    let behind = match background {
        Background::Ignore => return [r, g, b],
        Background::White => 255,
        Background::Black => 0,
    };
    let alpha = u32::from(alpha);
    [r, g, b]
        .map(|channel| ((u32::from(channel) * alpha + behind * (255 - alpha) + 127) / 255) as u8)
}

fn undecodable(detail: impl Into<String>) -> Error {
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
