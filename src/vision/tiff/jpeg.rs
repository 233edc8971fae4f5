//! Chunks compressed as JPEG, by libjpeg-turbo as in Pillow.

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use super::{
    color::Color,
    directory::{self as tag, damaged},
    layout::Layout,
};
use crate::error::{Result, ResultExt};

/// Number of scans beyond which a progressive file can only be an attack on the decoder's time.
const MAX_SCANS: u32 = 100;

/// Start of an image, and Adobe's segment without its last byte, the color transform.
const START: &[u8] = b"\xFF\xD8\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0";

/// Decodes the first rows of a chunk.
pub(super) fn decode(layout: &Layout<'_>, data: &[u8], rows: &mut [u8]) -> Result<()> {
    let failed = |error| damaged(format!("JPEG data in it: {error}"));
    let (format, colorspace) = match layout.color {
        _ if layout.planar => (PixelFormat::GRAY, Colorspace::Gray),
        Color::Gray { .. } | Color::Palette => (PixelFormat::GRAY, Colorspace::Gray),
        Color::Rgb => (PixelFormat::RGB, Colorspace::RGB),
        Color::YCbCr => (PixelFormat::RGB, Colorspace::YCbCr),
        Color::Cmyk => (PixelFormat::CMYK, Colorspace::CMYK),
    };
    let file = file(layout, data);
    let mut decoder = Decompressor::new().internal("libjpeg-turbo")?;
    decoder.set_scan_limit(MAX_SCANS).map_err(failed)?;
    let header = decoder.read_header(&file).map_err(failed)?;
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
    let mut pixels = vec![0; pitch * header.height];
    let image = Image {
        pixels: pixels.as_mut_slice(),
        width: header.width,
        pitch,
        height: header.height,
        format,
    };
    decoder.decompress(&file, image).map_err(failed)?;
    rows.copy_from_slice(&pixels[..rows.len()]);
    Ok(())
}

/// Builds a file of the tables, which all chunks share, and a chunk. TIFF's tags say what the
/// colors are and not the JPEG, so that a segment of Adobe's states it for the decoder.
fn file(layout: &Layout<'_>, data: &[u8]) -> Vec<u8> {
    let transform = u8::from(layout.color == Color::YCbCr);
    let tables = layout
        .jpeg_tables
        .strip_prefix(b"\xFF\xD8")
        .unwrap_or_default();
    let tables = tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables);
    let data = data.strip_prefix(b"\xFF\xD8").unwrap_or(data);
    [START, &[transform], tables, data].concat()
}
