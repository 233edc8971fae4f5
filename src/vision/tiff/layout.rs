//! What the tags say of an image, checked before any of it is decoded.

use super::{
    super::{DecodeLimits, Size, tags::Order},
    color::{Alpha, Color, Format, color},
    compression::{Compression, Predictor, compression, predictor},
    directory::{self as tag, Directory, Tag, Values, damaged, listed},
};
use crate::error::Result;

/// Strips or tiles, all of which are called chunks here.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    pub(super) size: Size,
    pub(super) offsets: Values<'a>,
    pub(super) counts: Option<Values<'a>>,
}

/// The layout of an image in a file.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) order: Order,
    pub(super) size: Size,
    pub(super) color: Color,
    pub(super) alpha: Alpha,
    pub(super) samples: usize,
    pub(super) bits: u64,
    pub(super) format: Format,
    pub(super) compression: Compression,
    pub(super) predictor: Predictor,
    /// Whether the lowest bit of each byte comes first.
    pub(super) reversed_bits: bool,
    /// Whether each sample has chunks of its own.
    pub(super) planar: bool,
    pub(super) chunks: Chunks<'a>,
    pub(super) color_map: Option<Values<'a>>,
    pub(super) jpeg_tables: &'a [u8],
}

/// Padding of tiles, in pixels, that is taken whatever the size of the image.
const MAX_PADDING: usize = 1 << 22;

impl<'a> Layout<'a> {
    /// Reads the layout.
    ///
    /// # Errors
    /// `Kind::UndecodableImage` for a layout that is not decoded exactly, with the tag that is the
    /// reason; `Kind::TooLarge` above a limit.
    pub(super) fn read(tags: &Directory<'a>, limits: DecodeLimits) -> Result<Self> {
        let side = |tag: Tag| -> Result<usize> {
            let number = tags.number(tag)?;
            let number = number.ok_or_else(|| damaged(format!("it has no {tag}")))?;
            Ok(usize::try_from(number).unwrap_or(usize::MAX))
        };
        let size = Size::new(side(tag::IMAGE_WIDTH)?, side(tag::IMAGE_LENGTH)?);
        limits.check(size)?;
        let one = |tag| -> Result<u64> { Ok(tags.number(tag)?.unwrap_or(1)) };
        let samples = one(tag::SAMPLES_PER_PIXEL)?;
        if !(1..=8).contains(&samples) {
            return Err(tag::SAMPLES_PER_PIXEL.refused(samples));
        }
        let samples = samples as usize;
        let bits = same_for_all(tags, tag::BITS_PER_SAMPLE, samples)?;
        let format = match same_for_all(tags, tag::SAMPLE_FORMAT, samples)? {
            1 => Format::Unsigned,
            2 => Format::Signed,
            3 => Format::Float,
            other => return Err(tag::SAMPLE_FORMAT.refused(other)),
        };
        let (color, alpha) = color(tags, samples)?;
        let compression = compression(tags)?;
        let reversed_bits = match one(tag::FILL_ORDER)? {
            1 => false,
            2 => true,
            other => return Err(tag::FILL_ORDER.refused(other)),
        };
        let planar = match one(tag::PLANAR_CONFIGURATION)? {
            1 => false,
            2 => samples > 1,
            other => return Err(tag::PLANAR_CONFIGURATION.refused(other)),
        };
        let layout = Self {
            order: tags.order,
            size,
            color,
            alpha,
            samples,
            bits,
            format,
            compression,
            predictor: predictor(tags, compression, bits, format)?,
            reversed_bits,
            planar,
            chunks: chunks(tags, size, limits)?,
            color_map: tags.find(tag::COLOR_MAP)?,
            jpeg_tables: tags.bytes(tag::JPEG_TABLES)?,
        };
        let pixels = size.width as u64 * size.height as u64;
        let bytes = layout.kept() as u64 * if layout.is_wide() { 2 } else { 1 };
        limits.check_depth(pixels, pixels * bytes)?;
        Ok(layout)
    }

    /// Number of samples of a pixel that are kept: the color's and the alpha.
    pub(super) fn kept(&self) -> usize {
        self.color.samples() + usize::from(self.alpha != Alpha::None)
    }

    /// Number of samples of a pixel in a chunk.
    pub(super) fn samples_in_chunk(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// Whether samples are kept with 16 bits. Of CMYK and of premultiplied colors only the high
    /// byte is, as in Pillow.
    pub(super) fn is_wide(&self) -> bool {
        self.bits == 16
            && self.format == Format::Unsigned
            && self.color != Color::Cmyk
            && self.alpha != Alpha::Premultiplied
    }
}

/// Returns the value of a tag that may be given once, or for each sample; 1 if it is missing.
fn same_for_all(tags: &Directory<'_>, tag: Tag, samples: usize) -> Result<u64> {
    let mut values = tags.list(tag)?;
    values.truncate(samples);
    match values.as_slice() {
        [] => Ok(1),
        [first] => Ok(*first),
        [first, rest @ ..] if values.len() == samples && rest.iter().all(|v| v == first) => {
            Ok(*first)
        }
        _ => Err(tag.refused(format!("{} for {samples} samples", listed(&values)))),
    }
}

fn chunks<'a>(tags: &Directory<'a>, image: Size, limits: DecodeLimits) -> Result<Chunks<'a>> {
    let usize_of = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let tile_width = tags.number(tag::TILE_WIDTH)?.map(usize_of);
    let (size, offsets, counts) = if let Some(width) = tile_width {
        let height = tags.number(tag::TILE_LENGTH)?.map_or(0, usize_of);
        let size = Size::new(width, height);
        limits.check(size)?;
        // A tile is decompressed whole, so its size must be in proportion to the image's.
        let area = width * height;
        if area > MAX_PADDING.max(4 * image.width * image.height) {
            let value = format!("{width} in an image of {}×{}", image.width, image.height);
            return Err(tag::TILE_WIDTH.refused(value));
        }
        (size, tag::TILE_OFFSETS, tag::TILE_BYTE_COUNTS)
    } else {
        let rows = tags
            .number(tag::ROWS_PER_STRIP)?
            .map_or(image.height, usize_of);
        if rows == 0 {
            return Err(tag::ROWS_PER_STRIP.refused(rows));
        }
        let size = Size::new(image.width, rows.min(image.height));
        (size, tag::STRIP_OFFSETS, tag::STRIP_BYTE_COUNTS)
    };
    let missing = || damaged(format!("it has no {offsets}"));
    Ok(Chunks {
        size,
        offsets: tags.find(offsets)?.ok_or_else(missing)?,
        counts: tags.find(counts)?,
    })
}
