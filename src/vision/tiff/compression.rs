//! The tags that say how the samples are compressed.

use super::{
    color::Format,
    directory::{self as tag, Directory},
};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    /// CCITT run lengths without ends of lines.
    Runs,
    Fax3,
    Fax4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Predictor {
    None,
    Horizontal,
    Float,
}

/// Reads the compression.
pub(super) fn compression(tags: &Directory<'_>) -> Result<Compression> {
    let number = tags.number(tag::COMPRESSION)?.unwrap_or(1);
    let compression = match number {
        1 => Compression::None,
        2 => Compression::Runs,
        3 => Compression::Fax3,
        4 => Compression::Fax4,
        5 => Compression::Lzw,
        7 => Compression::Jpeg,
        8 | 32946 => Compression::Deflate,
        32773 => Compression::PackBits,
        _ => {
            let name = match number {
                6 => " (JPEG of 1992)",
                32771 => " (CCITT run lengths in words)",
                32809 => " (ThunderScan)",
                34676 | 34677 => " (LogLuv)",
                34712 | 33003 | 33005 => " (JPEG 2000)",
                34887 => " (LERC)",
                34925 => " (LZMA)",
                50000 => " (Zstandard)",
                50001 => " (WebP)",
                50002 | 52546 => " (JPEG XL)",
                _ => "",
            };
            return Err(tag::COMPRESSION.refused(format!("{number}{name}")));
        }
    };
    let (tag, refused) = match compression {
        // Lines that depend on the line above, and lines without compression.
        Compression::Fax3 => (tag::T4_OPTIONS, 0b11),
        Compression::Fax4 => (tag::T6_OPTIONS, 0b10),
        _ => return Ok(compression),
    };
    match tags.number(tag)?.unwrap_or(0) {
        options if options & refused != 0 => Err(tag.refused(options)),
        _ => Ok(compression),
    }
}

/// Reads the predictor, which belongs to LZW and Deflate only.
pub(super) fn predictor(
    tags: &Directory<'_>,
    compression: Compression,
    bits: u64,
    format: Format,
) -> Result<Predictor> {
    if !matches!(compression, Compression::Lzw | Compression::Deflate) {
        return Ok(Predictor::None);
    }
    match tags.number(tag::PREDICTOR)?.unwrap_or(1) {
        1 => Ok(Predictor::None),
        2 if bits >= 8 => Ok(Predictor::Horizontal),
        3 if bits == 32 && format == Format::Float => Ok(Predictor::Float),
        other => Err(tag::PREDICTOR.refused(format!("{other} with {bits} bits"))),
    }
}
