//! Labeled regions of an image: over the photograph, and as a PNG with a palette.

use crate::{
    error::{Result, ResultExt},
    vision::{RgbImage, Size},
};

/// Returns the color of a label from 1 on. Neighboring labels differ in hue and in lightness.
fn color_of(label: u8) -> [u8; 3] {
    const COLORS: [[u8; 3]; 10] = [
        [230, 50, 50],
        [40, 160, 250],
        [250, 190, 30],
        [60, 190, 80],
        [170, 80, 230],
        [250, 130, 30],
        [30, 200, 200],
        [240, 90, 170],
        [150, 110, 60],
        [160, 200, 40],
    ];
    let index = usize::from(label.saturating_sub(1));
    let round = (index / COLORS.len()) as u32;
    // Later rounds are darker.
    COLORS[index % COLORS.len()].map(|value| (u32::from(value) * 4 / (4 + round)) as u8)
}

/// Colors the regions of an image: those of label 0 are darkened, the others get a color and an
/// outline. `labels` has a value for each pixel.
///
/// # Panics
/// If there are fewer labels than pixels.
pub fn over_regions(image: &RgbImage, labels: &[u8], opacity: f32) -> RgbImage {
    let (width, height) = image.dimensions();
    let label_at = |x: u32, y: u32| labels[(y * width + x) as usize];
    RgbImage::from_fn(width, height, |x, y| {
        let label = label_at(x, y);
        // Of the label that lies on top, so that an outline is inside its region.
        let is_edge = label > 0
            && [
                (-1, 0),
                (1, 0),
                (0, -1),
                (0, 1),
                (-2, 0),
                (2, 0),
                (0, -2),
                (0, 2),
            ]
            .into_iter()
            .filter_map(|(dx, dy)| Some((x.checked_add_signed(dx)?, y.checked_add_signed(dy)?)))
            .any(|(x, y)| x < width && y < height && label_at(x, y) != label);
        let (color, share) = match (label, is_edge) {
            (0, _) => ([0; 3], 0.5 * opacity),
            (_, true) => (color_of(label), 1.0),
            (_, false) => (color_of(label), opacity * 0.6),
        };
        let mix = |below: u8, above: u8| {
            (f32::from(below) * (1.0 - share) + f32::from(above) * share).round() as u8
        };
        let below = image.get_pixel(x, y).0;
        image::Rgb(std::array::from_fn(|c| mix(below[c], color[c])))
    })
}

/// Encodes labels as PNG with a palette: the index of a pixel is its label, and label 0 is black.
pub fn indexed_png(labels: &[u8], size: Size) -> Result<Vec<u8>> {
    const ACTION: &str = "encoding PNG";
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width as u32, size.height as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let largest = labels.iter().copied().max().unwrap_or(0);
    let palette = (0..=largest).flat_map(|label| match label {
        0 => [0; 3],
        _ => color_of(label),
    });
    encoder.set_palette(palette.collect::<Vec<u8>>());
    let mut writer = encoder.write_header().internal(ACTION)?;
    writer.write_image_data(labels).internal(ACTION)?;
    writer.finish().internal(ACTION)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_colored_and_the_rest_is_darkened() {
        let image = RgbImage::from_pixel(20, 10, image::Rgb([100; 3]));
        let labels: Vec<u8> = (0..200).map(|index| u8::from(index % 20 >= 10)).collect();
        let drawn = over_regions(&image, &labels, 0.5);
        assert_eq!(drawn.get_pixel(2, 5).0, [75; 3]);
        assert_eq!(drawn.get_pixel(10, 5).0, color_of(1));
        let [red, green, _] = drawn.get_pixel(17, 5).0;
        assert!(red > 130 && green < 90);
    }

    #[test]
    fn the_indices_of_a_png_are_the_labels() {
        let labels: Vec<u8> = (0..6).map(|index| index * 3).collect();
        let bytes = indexed_png(&labels, Size::new(3, 2)).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; 6];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, labels);
        assert_eq!(reader.info().palette.as_ref().unwrap().len(), 3 * 16);
    }
}
