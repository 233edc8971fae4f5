//! What of a WebP file is looked at before it is decoded, as the decoder (image-webp 0.2) trusts
//! its chunks: it decodes a picture that is larger than the file states before it refuses it, and
//! reserves as much memory for an EXIF block as that claims to be long.

use crate::error::{Error, Kind, Result};

/// A part of the file, or what of it is there.
struct Chunk<'a> {
    kind: [u8; 4],
    data: &'a [u8],
    whole: bool,
}

/// Refuses a file in which a picture has another size than it should, and gives the EXIF block.
///
/// # Errors
/// [`Kind::UndecodableImage`].
pub(super) fn look_through(bytes: &[u8]) -> Result<Option<&[u8]>> {
    let (mut canvas, mut exif, mut frames) = (None, None, 0);
    for Chunk { kind, data, whole } in chunks(bytes.get(12..).unwrap_or_default()) {
        match &kind {
            b"VP8X" => canvas = canvas.or_else(|| size(data.get(4..10)?)),
            b"EXIF" if whole => exif = exif.or(Some(data)),
            // Of an animation the first picture is decoded.
            b"ANMF" if frames == 0 => {
                frames += 1;
                let frame = data.get(6..12).and_then(size);
                for chunk in chunks(data.get(16..).unwrap_or_default()) {
                    check(&chunk, frame, "frame")?;
                }
            }
            // Without a canvas the picture's own size is the file's.
            _ => check(&Chunk { kind, data, whole }, canvas, "canvas")?,
        }
    }
    Ok(exif)
}

fn check(chunk: &Chunk<'_>, expected: Option<(u32, u32)>, of: &str) -> Result<()> {
    match (size_of_picture(chunk), expected) {
        (Some((width, height)), Some(expected)) if (width, height) != expected => {
            let detail = format!(
                "the WEBP cannot be decoded: its picture is {width}×{height}, and the {of} {}×{}",
                expected.0, expected.1
            );
            Err(Error::new(Kind::UndecodableImage, detail))
        }
        _ => Ok(()),
    }
}

/// Width and height in a picture's own header.
fn size_of_picture(chunk: &Chunk<'_>) -> Option<(u32, u32)> {
    match &chunk.kind {
        b"VP8 " => {
            let [a, b, c, d] = *chunk.data.get(6..)?.first_chunk()?;
            let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
            Some((side(a, b), side(c, d)))
        }
        b"VP8L" => {
            let sides = u32::from_le_bytes(*chunk.data.get(1..)?.first_chunk()?);
            Some(((sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1))
        }
        _ => None,
    }
}

/// Two sides of three bytes, each less by one.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let [a, b, c, d, e, f] = *bytes.first_chunk()?;
    Some((
        u32::from_le_bytes([a, b, c, 0]) + 1,
        u32::from_le_bytes([d, e, f, 0]) + 1,
    ))
}

fn chunks(mut rest: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (&[a, b, c, d, length @ ..], tail) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes(length) as usize;
        // One of odd length is followed by a byte that fills it up.
        rest = tail
            .get(length.saturating_add(length % 2)..)
            .unwrap_or_default();
        Some(Chunk {
            kind: [a, b, c, d],
            data: &tail[..length.min(tail.len())],
            whole: length <= tail.len(),
        })
    })
}
