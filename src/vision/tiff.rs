//! Checks of a TIFF file before it is decoded.

use std::io::Cursor;

use tiff::{
    decoder::Decoder,
    tags::{CompressionMethod, Tag},
};

use super::{DecodeLimits, Size};
use crate::error::{Error, Kind, Result};

/// Rejects files that would take far more work and memory than the image's size says (tiff 0.11):
/// strips in JPEG, each of which is decoded whole, however large, for the few rows that are needed
/// of it; and tiles larger than the limits allow an image to be. The decoder finds other errors.
pub(super) fn check(bytes: &[u8], limits: DecodeLimits) -> Result<()> {
    let Ok(mut decoder) = Decoder::new(Cursor::new(bytes)) else {
        return Ok(());
    };
    let mut number = |tag| decoder.find_tag_unsigned::<u64>(tag).ok().flatten();
    if number(Tag::Compression) == Some(u64::from(CompressionMethod::ModernJPEG.to_u16())) {
        let detail = "the TIFF cannot be decoded: its pixels are compressed as JPEG; \
                      send a JPEG, or a TIFF with lossless compression";
        return Err(Error::new(Kind::UndecodableImage, detail));
    }
    match (number(Tag::TileWidth), number(Tag::TileLength)) {
        (Some(width), Some(height)) if width > 0 && height > 0 => limits.check(Size::new(
            usize::try_from(width).unwrap_or(usize::MAX),
            usize::try_from(height).unwrap_or(usize::MAX),
        )),
        _ => Ok(()),
    }
}
