//! Photographs to send: many different ones, made from the four that the project has.

use std::{io::Cursor, path::Path, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use image::{RgbImage, codecs::jpeg::JpegEncoder, imageops};

const SOURCES: [&str; 4] = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"];

/// `count` different JPEG files of `width`×`height`: parts of the photographs, mirrored, at various
/// places.
pub(crate) fn photos(
    golden: &Path,
    count: usize,
    width: u32,
    height: u32,
) -> anyhow::Result<Arc<Vec<Bytes>>> {
    let sources: Vec<RgbImage> = SOURCES
        .iter()
        .map(|name| {
            let path = golden.join("dinov2-small-focus").join(name);
            Ok(image::open(&path)
                .with_context(|| path.display().to_string())?
                .into_rgb8())
        })
        .collect::<anyhow::Result<_>>()?;
    let photo = |index: usize| {
        let source = &sources[index % sources.len()];
        let shift = (index / sources.len()) as u32;
        // A window of nine tenths, a little further with each use of the same source.
        let (w, h) = (source.width() * 9 / 10, source.height() * 9 / 10);
        let x = (shift * 5) % (source.width() - w).max(1);
        let y = (shift * 3) % (source.height() - h).max(1);
        let part = imageops::crop_imm(source, x, y, w, h).to_image();
        let part = if shift % 2 == 1 {
            imageops::flip_horizontal(&part)
        } else {
            part
        };
        let sized = imageops::resize(&part, width, height, imageops::FilterType::CatmullRom);
        let mut file = Cursor::new(Vec::new());
        JpegEncoder::new_with_quality(&mut file, 88).encode_image(&sized)?;
        Ok(Bytes::from(file.into_inner()))
    };
    Ok(Arc::new(
        (0..count).map(photo).collect::<anyhow::Result<_>>()?,
    ))
}
