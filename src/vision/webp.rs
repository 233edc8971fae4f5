//! Checks of a WebP file before it is decoded.
//!
//! The decoder (image-webp 0.2) trusts the file's chunks: it decodes an image that is larger than
//! the file states before it rejects the file, and allocates as much memory for an EXIF block as
//! the block claims to be long.

use image::metadata::Orientation;

use super::{Size, exif::orientation_of, undecodable::undecodable};
use crate::error::Result;

/// A part of the file; `data` is shorter than stated if the file ends early.
struct Chunk<'a> {
    kind: [u8; 4],
    data: &'a [u8],
    complete: bool,
}

/// Rejects a file in which an image has another size than stated, and returns the orientation.
pub(super) fn check(bytes: &[u8]) -> Result<Orientation> {
    let mut canvas = None;
    let mut exif = None;
    let mut xmp = None;
    let mut frames = 0;
    for chunk in chunks(bytes.get(12..).unwrap_or_default()) {
        let data = chunk.data;
        match &chunk.kind {
            b"VP8X" => canvas = canvas.or_else(|| size(data.get(4..10)?)),
            b"EXIF" if chunk.complete => exif = exif.or(Some(data)),
            b"XMP " if chunk.complete => xmp = xmp.or(Some(data)),
            // Only the first frame of an animation is decoded.
            b"ANMF" if frames == 0 => {
                frames += 1;
                let frame = data.get(6..12).and_then(size);
                for chunk in chunks(data.get(16..).unwrap_or_default()) {
                    check_size(&chunk, frame, "frame")?;
                }
            }
            // Without a canvas the file's size is that of the image itself.
            _ => check_size(&chunk, canvas, "canvas")?,
        }
    }
    Ok(orientation_of(exif, xmp))
}

fn check_size(chunk: &Chunk<'_>, expected: Option<Size>, container: &str) -> Result<()> {
    match (size_of_image(chunk), expected) {
        (Some(found), Some(expected)) if found != expected => {
            let reason = format!(
                "its image is {}×{}, and the {container} {}×{}",
                found.width, found.height, expected.width, expected.height
            );
            Err(undecodable("WebP", reason))
        }
        _ => Ok(()),
    }
}

/// Reads the size from an image's own header.
fn size_of_image(chunk: &Chunk<'_>) -> Option<Size> {
    match &chunk.kind {
        b"VP8 " => {
            let [a, b, c, d] = *chunk.data.get(6..)?.first_chunk()?;
            let side = |low, high| usize::from(u16::from_le_bytes([low, high]) & 0x3FFF);
            Some(Size::new(side(a, b), side(c, d)))
        }
        b"VP8L" => {
            let sides = u32::from_le_bytes(*chunk.data.get(1..)?.first_chunk()?) as usize;
            Some(Size::new((sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1))
        }
        _ => None,
    }
}

/// Reads a size of twice three bytes, each of which stores one less than the side.
fn size(bytes: &[u8]) -> Option<Size> {
    let [a, b, c, d, e, f] = *bytes.first_chunk()?;
    Some(Size::new(
        u32::from_le_bytes([a, b, c, 0]) as usize + 1,
        u32::from_le_bytes([d, e, f, 0]) as usize + 1,
    ))
}

fn chunks(mut rest: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (&[a, b, c, d, length @ ..], tail) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes(length) as usize;
        // A chunk of odd length is followed by a padding byte.
        rest = tail
            .get(length.saturating_add(length % 2)..)
            .unwrap_or_default();
        Some(Chunk {
            kind: [a, b, c, d],
            data: &tail[..length.min(tail.len())],
            complete: length <= tail.len(),
        })
    })
}
