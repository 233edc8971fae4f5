//! From the bytes of an image file to an upright RGB image.
//!
//! The size is checked against the limits from the header, before any pixel is allocated.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};

use super::{RgbImage, Transform, jpeg, tiff, webp};
use crate::error::{Error, Kind, Result};

/// Sizes above which an image is refused.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Most pixels (width × height) of up to four bytes; of larger ones accordingly fewer.
    pub max_pixels: u64,
    /// Most pixels of a side. Resampling a longer side would take memory out of proportion to its
    /// pixels.
    pub max_side: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_pixels: 50_000_000,
            max_side: 65_535,
        }
    }
}

impl DecodeLimits {
    /// Refuses a size with no pixels or more than the limit.
    ///
    /// # Errors
    /// [`Kind::UndecodableImage`] for an empty image, [`Kind::TooLarge`] above the limit.
    pub fn check(self, width: u64, height: u64) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::new(
                Kind::UndecodableImage,
                format!("the image has no pixels: it is {width}×{height}"),
            ));
        }
        if width.saturating_mul(height) > self.max_pixels {
            let detail = format!(
                "the image is {width}×{height} = {} pixels, more than the limit of {}; send it smaller",
                width.saturating_mul(height),
                self.max_pixels
            );
            return Err(Error::new(Kind::TooLarge, detail).with_limit(
                "max_image_pixels",
                self.max_pixels,
                "--max-image-pixels",
            ));
        }
        if width.max(height) > self.max_side {
            let detail = format!(
                "the image is {width}×{height}, a side longer than the limit of {}; send it smaller",
                self.max_side
            );
            return Err(Error::new(Kind::TooLarge, detail).with_limit(
                "max_image_side",
                self.max_side,
                "--max-image-side",
            ));
        }
        Ok(())
    }

    /// Refuses samples that take more memory than the limit of pixels has with four bytes each.
    ///
    /// # Errors
    /// [`Kind::TooLarge`].
    fn check_depth(self, pixels: u64, bytes: u64) -> Result<()> {
        if bytes <= self.max_pixels.saturating_mul(4) {
            return Ok(());
        }
        let detail = format!(
            "the image has {pixels} pixels of {} bytes, and the limit is {} of 4 bytes; send it smaller, or with 8 bits a sample",
            bytes / pixels.max(1),
            self.max_pixels
        );
        let error = Error::new(Kind::TooLarge, detail);
        Err(error.with_limit("max_image_pixels", self.max_pixels, "--max-image-pixels"))
    }
}

/// What stands behind transparent pixels.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Background {
    /// White, as on a page.
    #[default]
    White,
    /// Black.
    Black,
    /// Transparency is ignored and the stored colors are used, as Pillow's `convert("RGB")` does.
    Ignore,
}

/// How a file is turned into RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeOptions {
    /// Turn the image upright as its EXIF orientation says. Pillow does not, unless asked, but for
    /// TIFFs, which always are.
    pub exif: bool,
    /// What stands behind transparent pixels.
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

/// Decodes JPEG, PNG, WebP, GIF (first frame), BMP and TIFF to RGB. The format is told by the
/// bytes, not by a name.
///
/// # Errors
/// [`Kind::UndecodableImage`] for bytes that are none of these formats, or damaged;
/// [`Kind::TooLarge`] above a limit.
pub fn decode(bytes: &[u8], options: DecodeOptions, limits: DecodeLimits) -> Result<RgbImage> {
    decode_at_least(bytes, options, limits, None).map(|(image, _)| image)
}

/// As [`decode`], but a large JPEG is decoded to a smaller image of at least the size that
/// `transform` resizes to, which saves most of the work and changes its pixels a little. The second
/// value is the width and height of the whole.
///
/// # Errors
/// As [`decode`].
pub fn decode_fast(
    bytes: &[u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    transform: &Transform,
) -> Result<(RgbImage, (usize, usize))> {
    // What cannot be planned is decoded whole; the error comes when the transform is applied.
    let least = |width, height| {
        transform
            .plan(width, height)
            .map_or((width, height), |plan| plan.resized)
    };
    decode_at_least(bytes, options, limits, Some(&least))
}

fn decode_at_least(
    bytes: &[u8],
    options: DecodeOptions,
    limits: DecodeLimits,
    least: Option<jpeg::Least<'_>>,
) -> Result<(RgbImage, (usize, usize))> {
    if bytes.is_empty() {
        return Err(Error::new(
            Kind::UndecodableImage,
            "the image is empty (0 bytes)",
        ));
    }
    let format = image::guess_format(bytes);
    // Pillow turns a TIFF when it loads it, whoever asks.
    let turns_always = matches!(format, Ok(ImageFormat::Tiff));
    let (mut image, orientation, mut whole) = match format {
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes, limits, least)?,
        Ok(
            format @ (ImageFormat::Png
            | ImageFormat::WebP
            | ImageFormat::Gif
            | ImageFormat::Bmp
            | ImageFormat::Tiff),
        ) => {
            let (image, orientation) = decode_other(bytes, format, options.background, limits)?;
            let whole = (image.width() as usize, image.height() as usize);
            (image, orientation, whole)
        }
        _ => {
            return Err(Error::new(
                Kind::UndecodableImage,
                format!(
                    "{} are not an image; send JPEG, PNG, WebP, GIF, BMP or TIFF",
                    describe(bytes)
                ),
            ));
        }
    };
    if (options.exif || turns_always) && orientation != Orientation::NoTransforms {
        let mut turned = DynamicImage::ImageRgb8(image);
        turned.apply_orientation(orientation);
        image = turned.into_rgb8();
        if swaps_sides(orientation) {
            whole = (whole.1, whole.0);
        }
    }
    Ok((image, whole))
}

/// Whether width and height change places when an image is turned upright.
pub(super) fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(
        orientation,
        Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH
    )
}

fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    background: Background,
    limits: DecodeLimits,
) -> Result<(RgbImage, Orientation)> {
    let undecodable = |error: image::ImageError| {
        let name = format
            .extensions_str()
            .first()
            .copied()
            .unwrap_or("image")
            .to_uppercase();
        Error::new(
            Kind::UndecodableImage,
            format!("the {name} cannot be decoded: {error}"),
        )
    };
    let mut exif = None;
    match format {
        ImageFormat::Png => check_palette(bytes)?,
        ImageFormat::Tiff => tiff::check(bytes, limits)?,
        ImageFormat::WebP => exif = webp::look_through(bytes)?,
        _ => {}
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    limits.check(u64::from(width), u64::from(height))?;
    limits.check_depth(u64::from(width) * u64::from(height), decoder.total_bytes())?;
    let mut reserve = image::Limits::default();
    // As much as this image needs twice over, and some room: a frame inside may say it is larger
    // than the image.
    reserve.max_alloc = Some(
        decoder
            .total_bytes()
            .saturating_mul(2)
            .saturating_add(1 << 24),
    );
    decoder.set_limits(reserve).map_err(undecodable)?;
    let orientation = match format {
        ImageFormat::WebP => exif.map_or(Orientation::NoTransforms, orientation_of),
        ImageFormat::Png => decoder
            .exif_metadata()
            .ok()
            .flatten()
            .map_or(Orientation::NoTransforms, |exif| orientation_of(&exif)),
        _ => decoder.orientation().unwrap_or(Orientation::NoTransforms),
    };
    let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    Ok((to_rgb(image, background), orientation))
}

/// Refuses a PNG whose palette is not made of whole colors, on which the decoder (png 0.18)
/// panics.
fn check_palette(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        match &head[4..] {
            b"PLTE" if !length.is_multiple_of(3) => {
                let detail = format!(
                    "the PNG cannot be decoded: its palette has {length} bytes, no multiple of 3"
                );
                return Err(Error::new(Kind::UndecodableImage, detail));
            }
            b"IDAT" => break,
            _ => {}
        }
        // A checksum ends each chunk.
        rest = after.get(length.saturating_add(4)..).unwrap_or_default();
    }
    Ok(())
}

/// The orientation in an EXIF block; some writers put the marker of JPEG files in front of it.
pub(super) fn orientation_of(exif: &[u8]) -> Orientation {
    let block = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(block).unwrap_or(Orientation::NoTransforms)
}

/// 16-bit samples keep their high byte, as Pillow does for RGB; transparent pixels are laid over
/// the background.
fn to_rgb(image: DynamicImage, background: Background) -> RgbImage {
    let high = |sample: u16| (sample >> 8) as u8;
    let (width, height) = (image.width(), image.height());
    let over = |pixels: &mut dyn Iterator<Item = [u8; 4]>| {
        let mut out = Vec::with_capacity(width as usize * height as usize * 3);
        pixels.for_each(|pixel| out.extend_from_slice(&lay_over(pixel, background)));
        RgbImage::from_raw(width, height, out).expect("one pixel in, one pixel out")
    };
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma16(image) => over(
            &mut image
                .pixels()
                .map(|p| [high(p[0]), high(p[0]), high(p[0]), 255]),
        ),
        DynamicImage::ImageRgb16(image) => over(
            &mut image
                .pixels()
                .map(|p| [high(p[0]), high(p[1]), high(p[2]), 255]),
        ),
        DynamicImage::ImageLumaA8(image) => {
            over(&mut image.pixels().map(|p| [p[0], p[0], p[0], p[1]]))
        }
        DynamicImage::ImageRgba8(image) => over(&mut image.pixels().map(|p| p.0)),
        DynamicImage::ImageLumaA16(image) => over(
            &mut image
                .pixels()
                .map(|p| [high(p[0]), high(p[0]), high(p[0]), high(p[1])]),
        ),
        DynamicImage::ImageRgba16(image) => over(&mut image.pixels().map(|p| p.0.map(high))),
        other => other.into_rgb8(),
    }
}

fn lay_over([r, g, b, alpha]: [u8; 4], background: Background) -> [u8; 3] {
    let behind = match background {
        Background::Ignore => return [r, g, b],
        Background::White => 255,
        Background::Black => 0,
    };
    let alpha = u32::from(alpha);
    [r, g, b]
        .map(|channel| ((u32::from(channel) * alpha + behind * (255 - alpha) + 127) / 255) as u8)
}

fn describe(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(16)];
    match std::str::from_utf8(start) {
        Ok(text)
            if text
                .chars()
                .all(|c| !c.is_control() || c.is_ascii_whitespace()) =>
        {
            format!("the {} bytes that begin with {:?}", bytes.len(), text)
        }
        _ => format!("the {} bytes that begin with {}", bytes.len(), hex(start)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}
