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

use super::DecodeLimits;
use crate::error::Result;
use directory::Directory;
use layout::Layout;

/// Decodes the first image of a file, not yet turned upright.
pub(super) fn decode(file: &[u8], limits: DecodeLimits) -> Result<(DynamicImage, Orientation)> {
    let tags = Directory::read(file)?;
    let layout = Layout::read(&tags, limits)?;
    layout.check(&tags)?;
    let image = if layout.is_wide() {
        pixels::wide(&layout, samples::read(&layout, file, |sample| sample)?)?
    } else if layout.bits == 16 && layout.format == color::Format::Unsigned {
        pixels::narrow(
            &layout,
            samples::read(&layout, file, |sample| (sample >> 8) as u8)?,
        )?
    } else {
        pixels::narrow(
            &layout,
            samples::read(&layout, file, |sample| sample as u8)?,
        )?
    };
    let orientation = Orientation::from_exif(layout.orientation);
    Ok((image, orientation.unwrap_or(Orientation::NoTransforms)))
}
