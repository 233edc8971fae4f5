//! The compressed data of strips and tiles, in the order of the file.

use std::{borrow::Cow, io::Read};

use weezl::{BitOrder, LzwStatus, decode::Configuration};

use super::{compression::Compression, directory::damaged, fax, jpeg, layout::Layout};
use crate::error::Result;

/// Length of all chunks together, as a multiple of the file's, above which they overlap too much:
/// each may cost the time that all its data take.
const MAX_OVERLAP: u64 = 4;

/// Reads one chunk after the other.
pub(super) struct Source<'a, Offsets, Counts> {
    layout: &'a Layout<'a>,
    file: Cow<'a, [u8]>,
    offsets: Offsets,
    counts: Option<Counts>,
}

/// Begins to read the chunks.
pub(super) fn chunks<'a>(
    layout: &'a Layout<'a>,
    file: &'a [u8],
) -> Result<Source<'a, impl Iterator<Item = u64>, impl Iterator<Item = u64>>> {
    let offsets = layout.chunks.offsets.numbers()?;
    let (image, chunk) = (layout.size, layout.chunks.size);
    let planes = layout.samples / layout.samples_in_chunk();
    let count = planes * image.width.div_ceil(chunk.width) * image.height.div_ceil(chunk.height);
    if offsets.len() != count {
        let found = offsets.len();
        return Err(damaged(format!(
            "it has {found} strips or tiles where its size needs {count}"
        )));
    }
    let counts = match layout.chunks.counts {
        // Without compression the length of a chunk follows from its size.
        Some(counts) if layout.compression != Compression::None => Some(counts.numbers()?),
        None if layout.compression != Compression::None => {
            return Err(damaged("its compressed strips or tiles have no lengths"));
        }
        _ => None,
    };
    if let Some(counts) = counts.clone() {
        let total = counts.take(count).fold(0, u64::saturating_add);
        if total > MAX_OVERLAP * file.len() as u64 {
            return Err(damaged("its strips or tiles are longer than the file"));
        }
    }
    // Decoders of JPEG read bits in one order only.
    let reversed = layout.reversed_bits && layout.compression != Compression::Jpeg;
    Ok(Source {
        layout,
        file: if reversed {
            file.iter().map(|byte| byte.reverse_bits()).collect()
        } else {
            Cow::Borrowed(file)
        },
        offsets,
        counts,
    })
}

impl<Offsets: Iterator<Item = u64>, Counts: Iterator<Item = u64>> Source<'_, Offsets, Counts> {
    /// Decompresses the first rows of the next chunk.
    pub(super) fn read(&mut self, rows: &mut [u8]) -> Result<()> {
        let start = self.offsets.next().unwrap_or_default();
        let data = usize::try_from(start)
            .ok()
            .and_then(|start| self.file.get(start..))
            .ok_or_else(|| damaged(format!("a strip or tile begins behind its end, at {start}")))?;
        let data = match self.counts.as_mut().and_then(Iterator::next) {
            Some(length) => &data[..data.len().min(length as usize)],
            None => data,
        };
        let width = self.layout.chunks.size.width;
        let done = match self.layout.compression {
            Compression::None => data
                .get(..rows.len())
                .map(|data| rows.copy_from_slice(data)),
            Compression::Runs => fax::runs(data, width, rows),
            Compression::Fax3 => fax::group3(data, width, rows),
            Compression::Fax4 => fax::group4(data, width, rows),
            // Before the specification of 1992 the lowest bit of a code came first.
            Compression::Lzw if matches!(data, [0, second, ..] if second & 1 == 1) => {
                lzw(data, rows, Configuration::new(BitOrder::Lsb, 8))
            }
            Compression::Lzw => {
                let usual = Configuration::with_tiff_size_switch(BitOrder::Msb, 8);
                lzw(data, rows, usual)
            }
            Compression::Jpeg => return jpeg::decode(self.layout, data, rows),
            Compression::Deflate => {
                let mut decoder = flate2::read::ZlibDecoder::new(data);
                decoder.read_exact(rows).ok()
            }
            Compression::PackBits => pack_bits(data, rows),
        };
        done.ok_or_else(|| damaged("a strip or tile is damaged or ends early"))
    }
}

fn lzw(mut data: &[u8], mut rows: &mut [u8], configuration: Configuration) -> Option<()> {
    let mut decoder = configuration.with_yield_on_full_buffer(true).build();
    while !rows.is_empty() {
        let step = decoder.decode_bytes(data, rows);
        data = &data[step.consumed_in..];
        rows = &mut rows[step.consumed_out..];
        match step.status {
            Ok(LzwStatus::Ok) => {}
            _ if rows.is_empty() => {}
            _ => return None,
        }
    }
    Some(())
}

/// Decompresses runs of bytes: a length below 128 precedes one byte more of data, a negative one
/// is the number of repetitions.
fn pack_bits(mut data: &[u8], mut rows: &mut [u8]) -> Option<()> {
    while !rows.is_empty() {
        let (&head, rest) = data.split_first()?;
        let (length, taken) = match head {
            0..128 => (usize::from(head) + 1, usize::from(head) + 1),
            128 => (0, 0),
            129.. => (257 - usize::from(head), 1),
        };
        let (run, rest) = rest.split_at_checked(taken)?;
        data = rest;
        // A run may go on behind the last row that is needed.
        let (filled, after) = rows.split_at_mut(length.min(rows.len()));
        match head {
            129.. => filled.fill(run[0]),
            _ => filled.copy_from_slice(&run[..filled.len()]),
        }
        rows = after;
    }
    Some(())
}
