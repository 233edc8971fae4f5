//! Image files to send: many different ones, made from the project's four test images.

use std::{io::Cursor, path::Path, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use image::{RgbImage, codecs::jpeg::JpegEncoder, imageops};

const SOURCES: [&str; 4] = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"];

/// Makes `count` different JPEG files of `width`×`height` from parts of the test images, some of
/// them mirrored.
pub(crate) fn jpeg_files(
    golden: &Path,
    count: usize,
    width: u32,
    height: u32,
) -> anyhow::Result<Arc<Vec<Bytes>>> {
    let sources: Vec<RgbImage> = SOURCES
        .iter()
        .map(|name| {
            let path = golden.join("dinov2-small-focus").join(name);
            let image = image::open(&path).with_context(|| path.display().to_string())?;
            Ok(image.into_rgb8())
        })
        .collect::<anyhow::Result<_>>()?;
    let mut files = Vec::with_capacity(count);
    for index in 0..count {
        let source = &sources[index % sources.len()];
        let shift = (index / sources.len()) as u32;
        let part = part(source, shift);
        let sized = imageops::resize(&part, width, height, imageops::FilterType::CatmullRom);
        let mut file = Cursor::new(Vec::new());
        JpegEncoder::new_with_quality(&mut file, 88).encode_image(&sized)?;
        files.push(Bytes::from(file.into_inner()));
    }
    Ok(Arc::new(files))
}

/// Cuts out nine tenths of each side, further to the right and down for each `shift`; mirrors the
/// odd ones.
fn part(source: &RgbImage, shift: u32) -> RgbImage {
    let width = source.width() * 9 / 10;
    let height = source.height() * 9 / 10;
    let x = (shift * 5) % (source.width() - width).max(1);
    let y = (shift * 3) % (source.height() - height).max(1);
    let part = imageops::crop_imm(source, x, y, width, height).to_image();
    if shift % 2 == 1 {
        imageops::flip_horizontal(&part)
    } else {
        part
    }
}
