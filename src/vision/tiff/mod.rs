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

use image::{DynamicImage, metadata::Orientation};

use super::{DecodeLimits, exif::orientation_of, opened::Samples};
use crate::error::Result;
use directory::Directory;
use layout::Layout;

/// Reads and checks the tags of the first image of a file.
pub(super) fn open(file: &[u8], limits: DecodeLimits) -> Result<Samples<'_>> {
    let tags = Directory::read(file)?;
    let layout = Layout::read(&tags, limits)?;
    layout.check(&tags)?;
    let orientation = match tags.number(directory::ORIENTATION)? {
        Some(_) => Orientation::from_exif(layout.orientation).unwrap_or(Orientation::NoTransforms),
        None => orientation_of(None, tags.bytes(directory::XMP).ok()),
    };
    let pixels = layout.size.pixels();
    let sample_bytes = if layout.is_wide() { 2 } else { 1 };
    let samples = pixels * layout.kept() as u64 * sample_bytes;
    // A strip or tile is unpacked before its samples are taken. Palettes and CMYK become colors of
    // at most four bytes.
    let chunk = layout.chunks.size.pixels() * layout.samples_in_chunk() as u64;
    let unpacked = (chunk * layout.bits).div_ceil(8);
    Ok(Samples {
        full_size: layout.size,
        orientation,
        decoded_bytes: samples,
        working_bytes: unpacked.max(4 * pixels),
        read: Box::new(move || decode(&layout, file)),
    })
}

/// Decodes an image, not yet turned upright.
fn decode(layout: &Layout<'_>, file: &[u8]) -> Result<DynamicImage> {
    if layout.is_wide() {
        pixels::wide(layout, samples::read(layout, file, |sample| sample)?)
    } else if layout.bits == 16 && layout.format == color::Format::Unsigned {
        let samples = samples::read(layout, file, |sample| (sample >> 8) as u8)?;
        pixels::narrow(layout, samples)
    } else {
        pixels::narrow(layout, samples::read(layout, file, |sample| sample as u8)?)
    }
}
