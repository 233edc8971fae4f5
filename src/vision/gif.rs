//! The first frame of a GIF, on a screen as Pillow fills it.

use std::io::{Cursor, Read};

use gif::{ColorOutput, DecodeOptions, MemoryLimit};
use image::{DynamicImage, RgbImage, RgbaImage, metadata::Orientation};

use super::{DecodeLimits, Size, opened::Samples, undecodable::undecodable};
use crate::error::{Error, Result};

/// Reads the header of the first frame. What the frame does not cover is transparent, or has the
/// first color of the palette if the frame has no transparent color.
pub(super) fn open(file: &[u8], limits: DecodeLimits) -> Result<Samples<'_>> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.allow_unknown_blocks(true);
    // Memory is bounded by the limits below.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let (head, ramp, body) = with_palette(file);
    let bytes = Cursor::new(head).chain(Cursor::new(ramp)).chain(body);
    let mut decoder = options.read_info(bytes).map_err(|error| failed(&error))?;
    let screen = Size::new(decoder.width().into(), decoder.height().into());
    let frame = decoder.next_frame_info().map_err(|error| failed(&error))?;
    let frame = frame.ok_or_else(|| failed(&"it has no frame"))?;
    let transparent = frame.transparent;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let inner = Size::new(frame.width.into(), frame.height.into());
    if inner.width == 0 || inner.height == 0 {
        return Err(failed(&"its frame has no pixels"));
    }
    // A frame that does not fit enlarges the screen.
    let size = Size::new(
        screen.width.max(left + inner.width),
        screen.height.max(top + inner.height),
    );
    limits.check(size)?;
    let decode = move || {
        let mut indices = vec![0; inner.width * inner.height];
        let read = decoder.read_into_buffer(&mut indices);
        read.map_err(|error| failed(&error))?;
        let mut screen = vec![transparent.unwrap_or(0); size.width * size.height];
        let rows = screen.chunks_exact_mut(size.width).skip(top);
        for (to, from) in rows.zip(indices.chunks_exact(inner.width)) {
            to[left..left + inner.width].copy_from_slice(from);
        }
        let colors = colors(decoder.palette().unwrap_or_default());
        let color = |index: u8| colors[usize::from(index)];
        let (width, height) = (size.width as u32, size.height as u32);
        let image = if let Some(transparent) = transparent {
            let pixels = screen.iter().flat_map(|&index| {
                let [r, g, b] = color(index);
                [r, g, b, if index == transparent { 0 } else { 255 }]
            });
            RgbaImage::from_raw(width, height, pixels.collect()).map(DynamicImage::ImageRgba8)
        } else {
            let pixels = screen.iter().flat_map(|&index| color(index)).collect();
            RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8)
        };
        image.ok_or_else(|| Error::internal("a GIF has another number of pixels than its size"))
    };
    let channels = if transparent.is_some() { 4 } else { 3 };
    Ok(Samples {
        full_size: size,
        orientation: Orientation::NoTransforms,
        decoded_bytes: channels * size.pixels(),
        // The indices of the frame, and of the screen.
        working_bytes: 2 * size.pixels(),
        read: Box::new(decode),
    })
}

fn failed(reason: &dyn std::fmt::Display) -> Error {
    undecodable("GIF", reason)
}

/// Splits a file, and adds a palette of gray levels to one that has none for all frames.
fn with_palette(file: &[u8]) -> (Vec<u8>, Vec<u8>, &[u8]) {
    let (head, body) = file.split_at(file.len().min(13));
    let mut head = head.to_vec();
    match head.get_mut(10) {
        // The flag of a palette, and the number of its colors.
        Some(flags) if *flags & 0x80 == 0 => *flags |= 0x87,
        _ => return (head, Vec::new(), body),
    }
    (head, (0..=255).flat_map(|level| [level; 3]).collect(), body)
}

/// Returns the color of each index. Behind the end of a palette that is no more than a ramp, it is
/// the level of gray; of another palette, black.
fn colors(palette: &[u8]) -> [[u8; 3]; 256] {
    let palette = palette.as_chunks::<3>().0;
    let mut ramp = (0..=255).zip(palette);
    let is_ramp = ramp.all(|(level, color)| *color == [level; 3]);
    let mut colors = [[0; 3]; 256];
    for (level, color) in (0..=255).zip(&mut colors) {
        *color = match palette.get(usize::from(level)) {
            Some(color) => *color,
            None if is_ramp => [level; 3],
            None => [0; 3],
        };
    }
    colors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn palettes_that_are_short_are_completed() {
        assert_eq!(colors(&[])[200], [200; 3]);
        assert_eq!(colors(&[0, 0, 0, 1, 1, 1])[2], [2; 3]);
        let colored = colors(&[9, 8, 7, 1, 1, 1]);
        assert_eq!([colored[0], colored[2]], [[9, 8, 7], [0; 3]]);
    }
}
