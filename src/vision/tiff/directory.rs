//! The tags of the first image in a TIFF or BigTIFF file.

use std::fmt;

use super::super::{
    tags::{BYTE, IFD, LONG, LONG8, Order, RATIONAL, SHORT, size_of},
    undecodable::undecodable,
};
use crate::error::{Error, Result};

/// A tag's number and name in the specification.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag(u16, &'static str);

pub(super) const IMAGE_WIDTH: Tag = Tag(256, "ImageWidth");
pub(super) const IMAGE_LENGTH: Tag = Tag(257, "ImageLength");
pub(super) const BITS_PER_SAMPLE: Tag = Tag(258, "BitsPerSample");
pub(super) const COMPRESSION: Tag = Tag(259, "Compression");
pub(super) const PHOTOMETRIC: Tag = Tag(262, "PhotometricInterpretation");
pub(super) const FILL_ORDER: Tag = Tag(266, "FillOrder");
pub(super) const STRIP_OFFSETS: Tag = Tag(273, "StripOffsets");
pub(super) const SAMPLES_PER_PIXEL: Tag = Tag(277, "SamplesPerPixel");
pub(super) const ROWS_PER_STRIP: Tag = Tag(278, "RowsPerStrip");
pub(super) const STRIP_BYTE_COUNTS: Tag = Tag(279, "StripByteCounts");
pub(super) const PLANAR_CONFIGURATION: Tag = Tag(284, "PlanarConfiguration");
pub(super) const T4_OPTIONS: Tag = Tag(292, "T4Options");
pub(super) const T6_OPTIONS: Tag = Tag(293, "T6Options");
pub(super) const PREDICTOR: Tag = Tag(317, "Predictor");
pub(super) const COLOR_MAP: Tag = Tag(320, "ColorMap");
pub(super) const TILE_WIDTH: Tag = Tag(322, "TileWidth");
pub(super) const TILE_LENGTH: Tag = Tag(323, "TileLength");
pub(super) const TILE_OFFSETS: Tag = Tag(324, "TileOffsets");
pub(super) const TILE_BYTE_COUNTS: Tag = Tag(325, "TileByteCounts");
pub(super) const EXTRA_SAMPLES: Tag = Tag(338, "ExtraSamples");
pub(super) const SAMPLE_FORMAT: Tag = Tag(339, "SampleFormat");
pub(super) const JPEG_TABLES: Tag = Tag(347, "JPEGTables");
pub(super) const XMP: Tag = Tag(700, "XMP");
pub(super) const YCBCR_COEFFICIENTS: Tag = Tag(529, "YCbCrCoefficients");
pub(super) const YCBCR_SUBSAMPLING: Tag = Tag(530, "YCbCrSubSampling");
pub(super) const REFERENCE_BLACK_WHITE: Tag = Tag(532, "ReferenceBlackWhite");

impl Tag {
    /// Rejects a file by the value of this tag.
    pub(super) fn refused(self, value: impl fmt::Display) -> Error {
        damaged(format!(
            "its {self} is {value}, which is not supported; \
             send a PNG, or a TIFF of 8-bit RGB with LZW or Deflate"
        ))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (tag {})", self.1, self.0)
    }
}

/// Rejects a file with the reason.
pub(super) fn damaged(reason: impl fmt::Display) -> Error {
    undecodable("TIFF", reason)
}

/// Lists numbers for a message.
pub(super) fn listed(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    numbers.join(", ")
}

/// The values of a tag, which stay in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    tag: Tag,
    kind: u64,
    bytes: &'a [u8],
    order: Order,
}

impl<'a> Values<'a> {
    /// Returns the unsigned integers.
    ///
    /// # Errors
    /// `Kind::UndecodableImage` for values of another type.
    pub(super) fn numbers(self) -> Result<impl ExactSizeIterator<Item = u64> + Clone + 'a> {
        if !matches!(self.kind, BYTE | SHORT | LONG | IFD | LONG8) {
            return Err(damaged(format!(
                "its {} has values of type {} and not unsigned integers",
                self.tag, self.kind
            )));
        }
        let order = self.order;
        let numbers = self.bytes.chunks_exact(size_of(self.kind).unwrap_or(1));
        Ok(numbers.map(move |bytes| order.number(bytes)))
    }

    /// Returns the unsigned rational numbers, none of values of another type.
    pub(super) fn rationals(self) -> Vec<f64> {
        let pairs = match self.kind {
            RATIONAL => self.bytes.as_chunks::<8>().0,
            _ => &[],
        };
        let number = |bytes| self.order.number(bytes) as f64;
        let pairs = pairs.iter().map(|pair| pair.split_at(4));
        pairs.map(|(a, b)| number(a) / number(b)).collect()
    }
}

/// The tags of an image.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    file: &'a [u8],
    pub(super) order: Order,
    /// Length of an offset or count in bytes.
    offset: usize,
    entries: &'a [u8],
}

impl<'a> Directory<'a> {
    /// Finds the first directory.
    pub(super) fn read(file: &'a [u8]) -> Result<Self> {
        let cut = || damaged("its directory of tags lies outside of the file");
        let (order, big) = match file.first_chunk::<4>() {
            Some(b"II\x2a\0") => (Order::Little, false),
            Some(b"MM\0\x2a") => (Order::Big, false),
            Some(b"II\x2b\0") => (Order::Little, true),
            Some(b"MM\0\x2b") => (Order::Big, true),
            _ => return Err(damaged("its header is not that of a TIFF")),
        };
        let (pointer, offset, count) = if big { (8, 8, 8) } else { (4, 4, 2) };
        let at = |start: usize, length: usize| file.get(start..start.checked_add(length)?);
        let number = |start, length| Some(order.number(at(start, length)?) as usize);
        let start = number(pointer, offset).ok_or_else(cut)?;
        let entries = number(start, count).ok_or_else(cut)?;
        let start = start.saturating_add(count);
        let length = entries.checked_mul(4 + 2 * offset).ok_or_else(cut)?;
        Ok(Self {
            file,
            order,
            offset,
            entries: at(start, length).ok_or_else(cut)?,
        })
    }

    /// Finds the values of a tag.
    ///
    /// # Errors
    /// `Kind::UndecodableImage` if they lie outside of the file, or if there are others.
    pub(super) fn find(&self, tag: Tag) -> Result<Option<Values<'a>>> {
        let mut entries = self
            .entries
            .chunks_exact(4 + 2 * self.offset)
            .filter(|entry| self.order.number(&entry[..2]) == u64::from(tag.0));
        let Some(entry) = entries.next() else {
            return Ok(None);
        };
        if entries.any(|other| other != entry) {
            return Err(damaged(format!("its {tag} is there twice")));
        }
        let kind = self.order.number(&entry[2..4]);
        let (count, value) = entry[4..].split_at(self.offset);
        let length = usize::try_from(self.order.number(count))
            .ok()
            .and_then(|count| count.checked_mul(size_of(kind).unwrap_or(0)));
        let bytes = length.and_then(|length| {
            let (start, file) = if length <= self.offset {
                (0, value)
            } else {
                (self.order.number(value) as usize, self.file)
            };
            file.get(start..start.checked_add(length)?)
        });
        let bytes = bytes.ok_or_else(|| damaged(format!("its {tag} lies outside of the file")))?;
        Ok(Some(Values {
            tag,
            kind,
            bytes,
            order: self.order,
        }))
    }

    /// Returns up to 16 unsigned integers of a tag, none if it is missing.
    pub(super) fn list(&self, tag: Tag) -> Result<Vec<u64>> {
        Ok(match self.find(tag)? {
            Some(values) => values.numbers()?.take(16).collect(),
            None => Vec::new(),
        })
    }

    /// Returns the first unsigned integer of a tag.
    pub(super) fn number(&self, tag: Tag) -> Result<Option<u64>> {
        Ok(match self.find(tag)? {
            Some(values) => values.numbers()?.next(),
            None => None,
        })
    }

    /// Returns the bytes of a tag, whatever their type.
    pub(super) fn bytes(&self, tag: Tag) -> Result<&'a [u8]> {
        Ok(self.find(tag)?.map_or(&[], |values| values.bytes))
    }
}
