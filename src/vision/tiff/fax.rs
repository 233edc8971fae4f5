//! Lines of black and white, compressed as in fax machines.

use std::convert::Infallible;

use fax::{
    BitReader, ByteReader, Color,
    decoder::{DecodeStatus, Group3Decoder, Group4Decoder, pels},
    maps::{black, white},
};

/// Reads data, and zeros behind their end: the decoder looks for whole bytes ahead.
fn padded(data: &[u8]) -> impl Iterator<Item = Result<u8, Infallible>> {
    data.iter().copied().chain([0; 4]).map(Ok)
}

/// Decodes lines without ends into rows of bits: each begins with a new byte.
pub(super) fn runs(data: &[u8], width: usize, rows: &mut [u8]) -> Option<()> {
    let width = u16::try_from(width).ok()?;
    let mut reader = ByteReader::new(padded(data)).ok()?;
    for row in rows.chunks_exact_mut(usize::from(width).div_ceil(8)) {
        let mut line = Vec::new();
        let mut end = 0_u16;
        while end < width {
            let is_white = line.len() % 2 == 0;
            loop {
                let length = if is_white {
                    white::decode(&mut reader)
                } else {
                    black::decode(&mut reader)
                }?;
                end = end.checked_add(length)?;
                // A longer code is followed by the rest of the run.
                if length < 64 {
                    break;
                }
            }
            line.push(end);
        }
        put(&line, width, row);
        reader.consume(reader.bits_to_byte_boundary()).ok()?;
    }
    Some(())
}

/// Decodes lines of group 3 that do not depend on each other.
pub(super) fn group3(data: &[u8], width: usize, rows: &mut [u8]) -> Option<()> {
    let width = u16::try_from(width).ok()?;
    let mut decoder = Group3Decoder::new(padded(data)).ok()?;
    for row in rows.chunks_exact_mut(usize::from(width).div_ceil(8)) {
        // After the last line of a strip its end may be missing, which is an error here.
        let _ = decoder.advance();
        if decoder.transitions().last() != Some(&width) {
            return None;
        }
        put(decoder.transitions(), width, row);
    }
    Some(())
}

/// Decodes lines of group 4.
pub(super) fn group4(data: &[u8], width: usize, rows: &mut [u8]) -> Option<()> {
    let width = u16::try_from(width).ok()?;
    let mut decoder = Group4Decoder::new(padded(data), width).ok()?;
    for row in rows.chunks_exact_mut(usize::from(width).div_ceil(8)) {
        match decoder.advance() {
            Ok(DecodeStatus::Incomplete) => put(decoder.transition(), width, row),
            _ => return None,
        }
    }
    Some(())
}

/// Writes a line of which the changes of color are known, beginning with white.
fn put(line: &[u16], width: u16, row: &mut [u8]) {
    row.fill(0);
    for (x, color) in pels(line, width).enumerate() {
        if matches!(color, Color::Black) {
            row[x / 8] |= 0x80 >> (x % 8);
        }
    }
}
