//! HEIC: HEVC frames in a container of the ISO base media family, decoded by libheif and libde265.
//!
//! This module is built with the feature `heic` only. libheif crops and turns an image as the
//! container says; EXIF data have no say in it.

use std::fmt::Display;

use image::{DynamicImage, RgbImage, RgbaImage, metadata::Orientation};
use libheif_rs::{
    ColorSpace, CompressionFormat, DecodingOptions, HeifContext, ImageHandle, LibHeif, RgbChroma,
    SecurityLimits,
};

use super::{DecodeLimits, Size, opened::Samples, undecodable::undecodable};
use crate::error::{Error, Result};

/// Maximum number of tiles of an image, as libheif limits the items of a file. Cameras make tiles
/// of 512 pixels: 200 megapixels have 768.
const MAX_TILES: u64 = 1000;

/// Reads what a HEIC file says of its primary image, which is decoded to 8 bits a sample, cropped
/// and upright.
pub(super) fn open(bytes: &[u8], limits: DecodeLimits) -> Result<Samples<'_>> {
    let mut context = HeifContext::new().map_err(failed)?;
    let mut security = SecurityLimits::new();
    security.set_max_image_size_pixels(limits.max_pixels);
    security.set_max_number_of_tiles(MAX_TILES);
    context.set_security_limits(&security).map_err(failed)?;
    // Tiles are decoded one after the other, in the thread that asks for the image.
    context.set_max_decoding_threads(0);
    context.read_bytes(bytes).map_err(failed)?;
    let handle = context.primary_image_handle().map_err(failed)?;
    let full_size = Size::new(handle.width() as usize, handle.height() as usize);
    limits.check(full_size)?;
    let pixels = full_size.pixels();
    let channels = 3 + u64::from(handle.has_alpha_channel());
    Ok(Samples {
        full_size,
        orientation: Orientation::NoTransforms,
        decoded_bytes: channels * pixels,
        // The copy of libheif, planes of colors and of alpha, of two bytes a sample, and the frame
        // of the decoder.
        working_bytes: pixels * (channels + 2 * channels + 6),
        read: Box::new(move || {
            // The handle refers to the context.
            let _context = context;
            decode(&handle, full_size)
        }),
    })
}

fn decode(handle: &ImageHandle, size: Size) -> Result<DynamicImage> {
    let library = LibHeif::new_checked().map_err(failed)?;
    if library
        .decoder_descriptors(1, Some(CompressionFormat::Hevc))
        .is_empty()
    {
        return Err(failed("this program was built without libde265"));
    }
    let mut options = DecodingOptions::new().ok_or_else(|| failed("libheif is out of memory"))?;
    options.set_convert_hdr_to_8bit(true);
    options.set_strict_decoding(true);
    options.set_num_codec_threads(1);
    let has_alpha = handle.has_alpha_channel();
    let chroma = match has_alpha {
        true => RgbChroma::Rgba,
        false => RgbChroma::Rgb,
    };
    let image = library
        .decode(handle, ColorSpace::Rgb(chroma), Some(options))
        .map_err(failed)?;
    let plane = image.planes().interleaved;
    let plane = plane.ok_or_else(|| failed("it has no pixels"))?;
    let (width, height) = (plane.width as usize, plane.height as usize);
    if Size::new(width, height) != size {
        return Err(failed(format!(
            "its image is {width}×{height}, and its header says {}×{}",
            size.width, size.height
        )));
    }
    let row = width * if has_alpha { 4 } else { 3 };
    let mut pixels = Vec::with_capacity(row * height);
    for line in plane.data.chunks(plane.stride).take(height) {
        let line = line.get(..row);
        pixels.extend_from_slice(line.ok_or_else(|| failed("its rows are cut off"))?);
    }
    let image = match has_alpha {
        true => RgbaImage::from_raw(plane.width, plane.height, pixels).map(DynamicImage::from),
        false => RgbImage::from_raw(plane.width, plane.height, pixels).map(DynamicImage::from),
    };
    image.ok_or_else(|| failed("its rows are cut off"))
}

fn failed(reason: impl Display) -> Error {
    undecodable("HEIC", reason)
}
