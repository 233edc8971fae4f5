//! From the bytes of strips and tiles to samples.

use super::{
    super::{Size, tags::Order},
    color::{Color, Format},
    compression::Predictor,
    directory as tag,
    layout::Layout,
    source,
};
use crate::error::Result;

/// Reads the samples of the color and the alpha of all pixels. `store` reduces them to the type
/// that is kept.
pub(super) fn read<T: Copy + Default>(
    layout: &Layout<'_>,
    file: &[u8],
    store: impl Fn(u16) -> T,
) -> Result<Vec<T>> {
    let Size { width, height } = layout.size;
    let kept = layout.kept();
    let chunk = layout.chunks.size;
    let in_chunk = layout.samples_in_chunk();
    let (planes, taken) = if layout.planar { (kept, 1) } else { (1, kept) };
    let mut source = source::chunks(layout, file)?;
    let row_bytes = (chunk.width * in_chunk * layout.bits as usize).div_ceil(8);
    let mut bytes = vec![0; row_bytes * chunk.height.min(height)];
    let mut samples = Vec::with_capacity(chunk.width * in_chunk);
    let mut levels = GrayLevels { largest: 0.0 };
    let mut out = vec![T::default(); width * height * kept];
    for plane in 0..planes {
        for top in (0..height).step_by(chunk.height) {
            for left in (0..width).step_by(chunk.width) {
                let rows = chunk.height.min(height - top);
                let bytes = &mut bytes[..rows * row_bytes];
                source.read(bytes)?;
                for (y, row) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                    undo_predictor(layout, row);
                    unpack(layout, row, &mut samples, &mut levels)?;
                    let start = ((top + y) * width + left) * kept + plane;
                    if kept == in_chunk {
                        let end = start + kept * chunk.width.min(width - left);
                        for (to, &from) in out[start..end].iter_mut().zip(&samples) {
                            *to = store(from);
                        }
                        continue;
                    }
                    let pixels = out[start..].chunks_mut(kept).take(width - left);
                    for (pixel, samples) in pixels.zip(samples.chunks_exact(in_chunk)) {
                        for (to, &from) in pixel.iter_mut().zip(&samples[..taken]) {
                            *to = store(from);
                        }
                    }
                }
            }
        }
    }
    levels.check(layout)?;
    Ok(out)
}

/// Undoes the predictor: adds to each sample the one before it.
fn undo_predictor(layout: &Layout<'_>, row: &mut [u8]) {
    let step = layout.samples_in_chunk();
    let order = layout.order;
    match (layout.predictor, layout.bits) {
        (Predictor::None, _) => {}
        (Predictor::Horizontal, 16) => {
            let words = row.as_chunks_mut::<2>().0;
            for at in step..words.len() {
                let sum = order
                    .u16(words[at])
                    .wrapping_add(order.u16(words[at - step]));
                words[at] = match order {
                    Order::Little => sum.to_le_bytes(),
                    Order::Big => sum.to_be_bytes(),
                };
            }
        }
        (Predictor::Horizontal, 32) => {
            let words = row.as_chunks_mut::<4>().0;
            for at in step..words.len() {
                let sum = order
                    .u32(words[at])
                    .wrapping_add(order.u32(words[at - step]));
                words[at] = match order {
                    Order::Little => sum.to_le_bytes(),
                    Order::Big => sum.to_be_bytes(),
                };
            }
        }
        (Predictor::Horizontal, _) => add_bytes(row, step),
        (Predictor::Float, _) => {
            add_bytes(row, step);
            // First come the highest bytes of all numbers, last the lowest.
            let bytes = row.to_vec();
            let count = bytes.len() / 4;
            for (at, word) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *word = [0, 1, 2, 3].map(|byte| bytes[byte * count + at]);
                if order == Order::Little {
                    word.reverse();
                }
            }
        }
    }
}

fn add_bytes(row: &mut [u8], step: usize) {
    for at in step..row.len() {
        row[at] = row[at].wrapping_add(row[at - step]);
    }
}

/// Reads the samples of a row. Those of fewer than 8 bits are scaled to 255, but for a palette.
fn unpack(
    layout: &Layout<'_>,
    row: &[u8],
    samples: &mut Vec<u16>,
    levels: &mut GrayLevels,
) -> Result<()> {
    samples.clear();
    let order = layout.order;
    let scale = match (layout.bits, layout.color) {
        (_, Color::Palette) => 1,
        (1, _) => 255,
        (2, _) => 85,
        _ => 17,
    };
    let words = row.as_chunks::<2>().0.iter().map(|&word| order.u16(word));
    let longs = row.as_chunks::<4>().0.iter().map(|&long| order.u32(long));
    match (layout.format, layout.bits) {
        (Format::Unsigned, bits @ (1 | 2 | 4)) => {
            let mask = (1 << bits) - 1;
            for &byte in row {
                let shifts = (0..8).step_by(bits as usize).rev();
                samples.extend(shifts.map(|shift| u16::from(byte >> shift & mask) * scale));
            }
        }
        (Format::Unsigned, 8) => samples.extend(row.iter().map(|&byte| u16::from(byte))),
        (Format::Unsigned, 16) => samples.extend(words),
        (Format::Unsigned, _) => levels.take(layout, longs.map(f64::from), samples)?,
        (Format::Signed, 8) => {
            levels.take(
                layout,
                row.iter().map(|&byte| f64::from(byte as i8)),
                samples,
            )?;
        }
        (Format::Signed, 16) => {
            levels.take(layout, words.map(|word| f64::from(word as i16)), samples)?;
        }
        (Format::Signed, _) => {
            levels.take(layout, longs.map(|long| f64::from(long as i32)), samples)?;
        }
        (Format::Float, _) => {
            let floats = longs.map(|long| f64::from(f32::from_bits(long)));
            levels.take(layout, floats, samples)?;
        }
    }
    Ok(())
}

/// Samples of a type that does not say which value is white. They are taken for levels of gray from
/// 0 to 255, as Pillow does, if nothing speaks against it.
struct GrayLevels {
    largest: f64,
}

impl GrayLevels {
    fn take(
        &mut self,
        layout: &Layout<'_>,
        levels: impl Iterator<Item = f64>,
        samples: &mut Vec<u16>,
    ) -> Result<()> {
        for level in levels {
            if !(0.0..=255.0).contains(&level) {
                return Err(refused(
                    layout,
                    format!("a sample of {level}, outside of 0 to 255"),
                ));
            }
            self.largest = self.largest.max(level);
            samples.push(level as u16);
        }
        Ok(())
    }

    /// Rejects an image that is nearly black if white is 255, and not if it is 1.
    fn check(&self, layout: &Layout<'_>) -> Result<()> {
        if self.largest > 0.0 && self.largest <= 1.0 {
            let largest = self.largest;
            return Err(refused(
                layout,
                format!("no sample above {largest}, of 255"),
            ));
        }
        Ok(())
    }
}

fn refused(layout: &Layout<'_>, found: String) -> crate::error::Error {
    let bits = layout.bits;
    let format = match layout.format {
        Format::Unsigned => 1,
        Format::Signed => 2,
        Format::Float => 3,
    };
    tag::SAMPLE_FORMAT.refused(format!("{format} with {bits} bits and {found}"))
}
