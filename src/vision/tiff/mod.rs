//! TIFF: the tags are checked first, then strips and tiles are decompressed, each by the library of
//! its compression, and their samples are brought to the colors that Pillow shows.
//!
//! What is not decoded exactly is rejected by the name of its tag.

mod color;
mod combinations;
mod compression;
mod directory;
mod fax;
mod jpeg;
mod layout;
mod pixels;
mod samples;
mod source;

use image::DynamicImage;

use super::{DecodeLimits, exif::orientation_of, opened::Samples};
use crate::error::Result;
use color::{Alpha, Color, Format};
use compression::Compression;
use directory::Directory;
use layout::Layout;

/// Reads and checks the tags of the first image of a file.
pub(super) fn open(file: &[u8], limits: DecodeLimits) -> Result<Samples<'_>> {
    let tags = Directory::read(file)?;
    let layout = Layout::read(&tags, limits)?;
    layout.check(&tags)?;
    // The file has the form of an EXIF block, and Pillow reads it as one.
    let orientation = orientation_of(Some(file), tags.bytes(directory::XMP).ok());
    let pixels = layout.size.pixels();
    let sample_bytes = if layout.is_wide() { 2 } else { 1 };
    let samples = pixels * layout.kept() as u64 * sample_bytes;
    // A strip or tile is unpacked before its samples are taken.
    let chunk = layout.chunks.size.pixels() * layout.samples_in_chunk() as u64;
    let unpacked = (chunk * layout.bits).div_ceil(8);
    let unpacked = match layout.compression {
        // Its file, its pixels, and coefficients of two bytes if it has several scans.
        Compression::Jpeg => file.len() as u64 + 4 * unpacked,
        _ => unpacked,
    };
    let reversed_file = if layout.reversed_bits { file.len() } else { 0 };
    // Samples become colors while they are kept; colors with alpha become colors without.
    let color_bytes = match (layout.color, layout.alpha) {
        (Color::Palette, Alpha::None) | (Color::Cmyk, _) => 3,
        (Color::Palette, _) => 5,
        _ => 0,
    };
    Ok(Samples {
        full_size: layout.size,
        orientation,
        decoded_bytes: samples,
        working_bytes: (unpacked + reversed_file as u64).max(color_bytes * pixels),
        read: Box::new(move || decode(&layout, file)),
    })
}

/// Decodes an image, not yet turned upright.
fn decode(layout: &Layout<'_>, file: &[u8]) -> Result<DynamicImage> {
    if layout.is_wide() {
        pixels::wide(layout, samples::read(layout, file, |sample| sample)?)
    } else if layout.bits == 16 && layout.format == Format::Unsigned {
        let samples = samples::read(layout, file, |sample| (sample >> 8) as u8)?;
        pixels::narrow(layout, samples)
    } else {
        pixels::narrow(layout, samples::read(layout, file, |sample| sample as u8)?)
    }
}
