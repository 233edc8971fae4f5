//! From decoded samples to 8-bit RGB.

use image::DynamicImage;

use super::RgbImage;
use crate::names::option_enum;

option_enum! {
    /// Color behind transparent pixels.
    #[derive(Default)]
    pub enum Background {
        /// White.
        #[default]
        White,
        /// Black.
        Black,
        /// None: transparency is ignored and the stored colors are used, as Pillow's
        /// `convert("RGB")` does.
        Ignore,
    }
}

option_enum! {
    /// Range that becomes black to white, of samples with 16 bits.
    #[derive(Default)]
    pub enum Levels {
        /// All 16 bits.
        #[default]
        Type,
        /// The bits that the largest sample of the file needs, at least 8. Cameras and scanners
        /// often store 10 to 14 bits in 16.
        Data,
    }
}

impl Levels {
    /// Whether this is the default, which stored bindings of older versions do not name.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An image in RGB.
pub(super) struct Colors {
    pub(super) image: RgbImage,
    /// Whether samples with 16 bits all stay below 2^14, so that the image is nearly black.
    pub(super) is_dim: bool,
}

/// Bits of the largest sample up to which an image counts as dim.
const DIM_BITS: u32 = 14;

/// Converts to RGB: 16-bit samples keep the high byte of the range that `levels` states, as in
/// Pillow, and transparent pixels are blended with the background.
pub(super) fn to_rgb(image: DynamicImage, background: Background, levels: Levels) -> Colors {
    let bits = match &image {
        DynamicImage::ImageLuma16(image) => bits(image.iter()),
        DynamicImage::ImageRgb16(image) => bits(image.iter()),
        DynamicImage::ImageLumaA16(image) => bits(image.pixels().map(|p| &p.0[0])),
        DynamicImage::ImageRgba16(image) => bits(image.pixels().flat_map(|p| &p.0[..3])),
        _ => 16,
    };
    let shift = match levels {
        Levels::Type => 8,
        Levels::Data => bits.saturating_sub(8),
    };
    Colors {
        image: convert(image, background, shift),
        is_dim: levels == Levels::Type && (1..=DIM_BITS).contains(&bits),
    }
}

/// Returns the bits that the largest sample needs.
fn bits<'a>(samples: impl Iterator<Item = &'a u16>) -> u32 {
    let used = samples.fold(0, |used, sample| used | sample);
    u16::BITS - used.leading_zeros()
}

fn convert(image: DynamicImage, background: Background, shift: u32) -> RgbImage {
    let high = |sample: u16| (sample >> shift) as u8;
    let opacity = |sample: u16| (sample >> 8) as u8;
    let gray = |value: u8, alpha: u8| [value, value, value, alpha];
    let (width, height) = (image.width(), image.height());
    let over = |pixels: &mut dyn Iterator<Item = [u8; 4]>| {
        let mut out = Vec::with_capacity(width as usize * height as usize * 3);
        pixels.for_each(|pixel| out.extend_from_slice(&blend(pixel, background)));
        RgbImage::from_raw(width, height, out).expect("one pixel in, one pixel out")
    };
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma16(image) => {
            over(&mut image.pixels().map(|p| gray(high(p[0]), 255)))
        }
        DynamicImage::ImageRgb16(image) => over(&mut image.pixels().map(|p| {
            let [r, g, b] = p.0.map(high);
            [r, g, b, 255]
        })),
        DynamicImage::ImageLumaA8(image) => over(&mut image.pixels().map(|p| gray(p[0], p[1]))),
        DynamicImage::ImageRgba8(image) => over(&mut image.pixels().map(|p| p.0)),
        DynamicImage::ImageLumaA16(image) => {
            over(&mut image.pixels().map(|p| gray(high(p[0]), opacity(p[1]))))
        }
        DynamicImage::ImageRgba16(image) => over(&mut image.pixels().map(|p| {
            let [r, g, b, alpha] = p.0;
            [high(r), high(g), high(b), opacity(alpha)]
        })),
        other => other.into_rgb8(),
    }
}

fn blend([r, g, b, alpha]: [u8; 4], background: Background) -> [u8; 3] {
    let behind = match background {
        Background::Ignore => return [r, g, b],
        Background::White => 255,
        Background::Black => 0,
    };
    let alpha = u32::from(alpha);
    [r, g, b]
        .map(|channel| ((u32::from(channel) * alpha + behind * (255 - alpha) + 127) / 255) as u8)
}

/// Converts a pixel of CMYK that is stored inverted, as Adobe does: each value is the share of
/// light that passes.
pub(super) fn inverted_cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let black = i32::from(k);
    [c, m, y].map(|ink| {
        // Pillow's rounding division by 255 of (255 − ink)·black, taken from black.
        let product = (255 - i32::from(ink)) * black + 128;
        (black - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

#[cfg(test)]
mod tests {
    use image::ImageBuffer;

    use super::*;

    #[test]
    fn levels_of_the_data_keep_the_bits_that_are_used() {
        let gray = |samples: &[u16]| {
            let size = samples.len() as u32;
            let image = ImageBuffer::from_raw(size, 1, samples.to_vec()).expect("a row");
            DynamicImage::ImageLuma16(image)
        };
        for (samples, by_type, by_data, is_dim) in [
            ([0, 16, 2048, 4095], [0, 0, 8, 15], [0, 1, 128, 255], true),
            ([0, 1, 512, 1023], [0, 0, 2, 3], [0, 0, 128, 255], true),
            ([0, 64, 8192, 16383], [0, 0, 32, 63], [0, 1, 128, 255], true),
            (
                [0, 255, 16383, 16384],
                [0, 0, 63, 64],
                [0, 1, 127, 128],
                false,
            ),
            (
                [0, 256, 32768, 65535],
                [0, 1, 128, 255],
                [0, 1, 128, 255],
                false,
            ),
            ([0, 1, 2, 255], [0; 4], [0, 1, 2, 255], true),
            ([0; 4], [0; 4], [0; 4], false),
        ] {
            let first = |colors: &Colors| colors.image.pixels().map(|p| p[0]).collect::<Vec<_>>();
            let colors = to_rgb(gray(&samples), Background::White, Levels::Type);
            assert_eq!((first(&colors), colors.is_dim), (by_type.to_vec(), is_dim));
            let colors = to_rgb(gray(&samples), Background::White, Levels::Data);
            assert_eq!((first(&colors), colors.is_dim), (by_data.to_vec(), false));
        }
    }

    #[test]
    fn opacity_is_no_data_of_the_range() {
        let image = ImageBuffer::from_raw(1, 1, vec![4095, 2048, 16, 0x8000]).expect("a pixel");
        let image = DynamicImage::ImageRgba16(image);
        let colors = to_rgb(image.clone(), Background::Ignore, Levels::Data);
        assert_eq!(colors.image.as_raw(), &[255, 128, 1]);
        let colors = to_rgb(image, Background::Black, Levels::Type);
        assert_eq!(
            (colors.image.as_raw().as_slice(), colors.is_dim),
            ([8, 4, 0].as_slice(), true)
        );
    }
}
