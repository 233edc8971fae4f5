//! Sizes in an AV1 bitstream, read before its decoder allocates by them.

use super::super::{Size, undecodable::undecodable};
use crate::error::Result;

/// Number of frames beyond which an image can only be an attack on the decoder's time. A
/// progressive image has at most four layers.
const MAX_FRAMES: usize = 8;

/// Returns the number of frames, all of which the decoder may keep. Rejects a bitstream that states
/// another size than `size`, or many frames.
pub(super) fn check(stream: &[u8], size: Size) -> Result<usize> {
    let mut frames = 0;
    let mut has_size = false;
    for unit in units(stream) {
        match unit.kind {
            SEQUENCE_HEADER => {
                let stated = sequence_size(unit.content)
                    .ok_or_else(|| undecodable("AVIF", "its sequence header is cut off"))?;
                if stated != size {
                    return Err(undecodable(
                        "AVIF",
                        format!(
                            "its image is {}×{}, and its item {}×{}",
                            stated.width, stated.height, size.width, size.height
                        ),
                    ));
                }
                has_size = true;
            }
            FRAME_HEADER | FRAME => frames += 1,
            _ => {}
        }
    }
    if !has_size || frames == 0 {
        return Err(undecodable("AVIF", "it has no frame"));
    }
    if frames > MAX_FRAMES {
        let detail = format!("its image has {frames} frames, and the limit is {MAX_FRAMES}");
        return Err(undecodable("AVIF", detail));
    }
    Ok(frames)
}

// Types of units (AV1 specification, 6.2.2).
const SEQUENCE_HEADER: u8 = 1;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;

struct Unit<'a> {
    kind: u8,
    content: &'a [u8],
}

/// Returns the units (OBUs) of a bitstream.
fn units(mut rest: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    std::iter::from_fn(move || {
        let (&head, mut after) = rest.split_first()?;
        if head & 0b100 != 0 {
            after = after.get(1..)?;
        }
        let length = if head & 0b10 != 0 {
            let (length, bytes) = leb128(after)?;
            after = &after[bytes..];
            length.min(after.len())
        } else {
            after.len()
        };
        let (content, next) = after.split_at(length);
        rest = next;
        Some(Unit {
            kind: head >> 3 & 0b1111,
            content,
        })
    })
}

/// Reads a number of 7 bits a byte, and returns it with its length.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(8).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Reads the largest size of a frame from a sequence header (AV1 specification, 5.5.1).
fn sequence_size(header: &[u8]) -> Option<Size> {
    let mut bits = Bits { header, at: 0 };
    // Profile, and whether it is a still picture.
    bits.read(4)?;
    let is_reduced = bits.flag()?;
    if is_reduced {
        // Level
        bits.read(5)?;
    } else {
        skip_operating_points(&mut bits)?;
    }
    let width_bits = bits.read(4)? + 1;
    let height_bits = bits.read(4)? + 1;
    let width = bits.read(width_bits)? + 1;
    let height = bits.read(height_bits)? + 1;
    Some(Size::new(width as usize, height as usize))
}

fn skip_operating_points(bits: &mut Bits<'_>) -> Option<()> {
    let mut delay_bits = None;
    if bits.flag()? {
        // Times of frames
        bits.read(32)?;
        bits.read(32)?;
        if bits.flag()? {
            bits.skip_variable_length()?;
        }
        if bits.flag()? {
            delay_bits = Some(bits.read(5)? + 1);
            bits.read(32)?;
            bits.read(10)?;
        }
    }
    let has_display_delays = bits.flag()?;
    for _ in 0..=bits.read(5)? {
        bits.read(12)?;
        let level = bits.read(5)?;
        if level > 7 {
            bits.read(1)?;
        }
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.read(delay_bits)?;
            bits.read(delay_bits)?;
            bits.read(1)?;
        }
        if has_display_delays && bits.flag()? {
            bits.read(4)?;
        }
    }
    Some(())
}

struct Bits<'a> {
    header: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// Reads up to 32 bits, the highest first.
    fn read(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = *self.header.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.read(1)? == 1)
    }

    /// Skips a number that begins with as many zeros as it has bits after its first one.
    fn skip_variable_length(&mut self) -> Option<()> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros < 32 {
            self.read(zeros)?;
        }
        Some(())
    }
}
