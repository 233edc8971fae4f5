//! Chunks compressed as JPEG.

use turbojpeg::{Colorspace, PixelFormat};

use super::{
    super::{jpeg_head::Head, libjpeg::Jpeg},
    color::Color,
    directory::{self as tag, damaged},
    layout::Layout,
};
use crate::error::{Error, Result};

/// Start of an image, and Adobe's segment without its last byte, the color transform.
const START: &[u8] = b"\xFF\xD8\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0";

const END: &[u8] = b"\xFF\xD9";

/// Decodes the first rows of a chunk.
pub(super) fn decode(layout: &Layout<'_>, data: &[u8], rows: &mut [u8]) -> Result<()> {
    let (format, colorspace) = match layout.color {
        _ if layout.planar => (PixelFormat::GRAY, Colorspace::Gray),
        Color::Gray { .. } | Color::Palette => (PixelFormat::GRAY, Colorspace::Gray),
        Color::Rgb => (PixelFormat::RGB, Colorspace::RGB),
        Color::YCbCr => (PixelFormat::RGB, Colorspace::YCbCr),
        Color::Cmyk => (PixelFormat::CMYK, Colorspace::CMYK),
    };
    let file = file(layout, data);
    let head = Head::read(&file).map_err(|reason| reject(&reason))?;
    let mut jpeg = Jpeg::read(&file, &head, reject)?;
    let header = jpeg.header;
    let pitch = header.width * format.size();
    let chunk = layout.chunks.size;
    if header.width != chunk.width
        || header.height > chunk.height
        || header.height * pitch < rows.len()
    {
        return Err(damaged(format!(
            "JPEG data of {}×{} in a strip or tile of {}×{}",
            header.width, header.height, chunk.width, chunk.height
        )));
    }
    if header.colorspace != colorspace {
        return Err(tag::PHOTOMETRIC.refused(format!(
            "not the color space of its JPEG data: {:?}",
            header.colorspace
        )));
    }
    let pixels = jpeg.decompress(format)?;
    rows.copy_from_slice(&pixels[..rows.len()]);
    Ok(())
}

fn reject(reason: &str) -> Error {
    damaged(format!("JPEG data in it: {reason}"))
}

/// Builds a file of the tables, which all chunks share, and a chunk. TIFF's tags say what the
/// colors are and not the JPEG, so that a segment of Adobe's states it for the decoder. A chunk may
/// end early: libtiff puts a marker of the end behind each.
fn file(layout: &Layout<'_>, data: &[u8]) -> Vec<u8> {
    let transform = u8::from(layout.color == Color::YCbCr);
    let tables = layout
        .jpeg_tables
        .strip_prefix(b"\xFF\xD8")
        .unwrap_or_default();
    let tables = tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables);
    let data = data.strip_prefix(b"\xFF\xD8").unwrap_or(data);
    [START, &[transform], tables, data, END].concat()
}
