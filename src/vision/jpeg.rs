//! JPEG files.

use image::metadata::Orientation;
use turbojpeg::{
    Colorspace, Compressor, DecompressHeader, Image, PixelFormat, ScalingFactor, Subsamp,
};

use super::{
    DecodeLimits, Decoded, RgbImage, Size,
    color::inverted_cmyk_to_rgb,
    jpeg_head::{Frame, Head},
    libjpeg::Jpeg,
    opened::{MinSize, Opened},
    orientation::turned,
    undecodable::undecodable,
};
use crate::error::{Error, Result, ResultExt};

/// Reads and checks the header of a JPEG file. With `min_size` fewer pixels may be decoded: a half,
/// a quarter or an eighth of each side.
pub(super) fn open<'a>(
    bytes: &'a [u8],
    limits: DecodeLimits,
    min_size: Option<MinSize<'_>>,
) -> Result<Opened<'a>> {
    let head = Head::read(bytes).map_err(|reason| reject(&reason))?;
    let mut jpeg = Jpeg::read(bytes, &head, reject)?;
    let header = jpeg.header;
    let full_size = Size::new(header.width, header.height);
    limits.check(full_size)?;
    if let Some(Frame { precision, .. }) = head.frame()
        && precision != 8
    {
        return Err(reject(&format!(
            "its samples have {precision} bits; send a file with 8 bits a sample"
        )));
    }
    let orientation = head.orientation();
    let scaling = min_size.map_or(ScalingFactor::ONE, |min_size| {
        let min_size = turned(min_size(turned(full_size, orientation)), orientation);
        smallest_scaling(full_size, min_size)
    });
    // Lossless files do not consist of cosines and cannot be scaled: they are decoded whole.
    let scaling = if header.is_lossless || jpeg.decoder.set_scaling_factor(scaling).is_err() {
        ScalingFactor::ONE
    } else {
        scaling
    };
    let coefficients = full_size.pixels() as f64 * head.coefficient_bytes_per_pixel();
    let header = header.scaled(scaling);
    jpeg.header = header;
    let bytes_per_pixel = match Coding::of(header) {
        Coding::Rgb => 3,
        Coding::Cmyk => 4 + 3,
        Coding::Gray => 1 + 3,
    };
    let pixels = (header.width * header.height) as u64;
    Ok(Opened {
        full_size,
        orientation,
        memory: pixels * bytes_per_pixel + coefficients as u64,
        decode: Box::new(move || {
            Ok(Decoded {
                image: decode(jpeg)?,
                full_size,
                orientation: Orientation::NoTransforms,
                is_dim: false,
            })
        }),
    })
}

/// What libjpeg-turbo decodes to.
enum Coding {
    Rgb,
    Cmyk,
    Gray,
}

impl Coding {
    fn of(header: DecompressHeader) -> Self {
        match header.colorspace {
            Colorspace::CMYK | Colorspace::YCCK => Self::Cmyk,
            // It converts no colors of a lossless file.
            Colorspace::Gray if header.is_lossless => Self::Gray,
            _ => Self::Rgb,
        }
    }
}

/// Decodes a file to RGB, not yet turned upright.
fn decode(mut jpeg: Jpeg<'_>) -> Result<RgbImage> {
    let header = jpeg.header;
    let pixels = match Coding::of(header) {
        Coding::Rgb => jpeg.decompress(PixelFormat::RGB)?,
        Coding::Cmyk => {
            let cmyk = jpeg.decompress(PixelFormat::CMYK)?;
            let cmyk = cmyk.as_chunks::<4>().0;
            cmyk.iter()
                .flat_map(|&pixel| inverted_cmyk_to_rgb(pixel))
                .collect()
        }
        Coding::Gray => {
            let gray = jpeg.decompress(PixelFormat::GRAY)?;
            gray.into_iter().flat_map(|value| [value; 3]).collect()
        }
    };
    RgbImage::from_raw(header.width as u32, header.height as u32, pixels)
        .ok_or_else(|| Error::internal("a decoded JPEG has another size than its header states"))
}

fn reject(reason: &str) -> Error {
    undecodable("JPEG", reason)
}

/// Returns the strongest reduction after which an image of `full_size` still has `min_size`.
fn smallest_scaling(full_size: Size, min_size: Size) -> ScalingFactor {
    [
        ScalingFactor::ONE_EIGHTH,
        ScalingFactor::ONE_QUARTER,
        ScalingFactor::ONE_HALF,
    ]
    .into_iter()
    .find(|scaling| {
        min_size.fits(Size::new(
            scaling.scale(full_size.width),
            scaling.scale(full_size.height),
        ))
    })
    .unwrap_or(ScalingFactor::ONE)
}

/// Encodes an image for people to look at, with colors at half the resolution.
pub(super) fn encode(image: &RgbImage, quality: i32) -> Result<Vec<u8>> {
    let Size { width, height } = Size::of(image);
    let format = PixelFormat::RGB;
    let pixels = Image {
        pixels: image.as_raw().as_slice(),
        width,
        pitch: width * format.size(),
        height,
        format,
    };
    let mut encoder = Compressor::new().internal("encoding JPEG")?;
    encoder.set_quality(quality).internal("encoding JPEG")?;
    encoder
        .set_subsamp(Subsamp::Sub2x2)
        .internal("encoding JPEG")?;
    encoder.compress_to_vec(pixels).internal("encoding JPEG")
}
