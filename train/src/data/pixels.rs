//! Normalizes pixels for the network.

use dinoserve::{
    model::{Architecture, Normalization},
    vision::RgbImage,
};

/// Appends an image to `out` as `[3, height, width]`: values scaled to 0..1, less the mean of the
/// channel, divided by its standard deviation.
pub fn append_normalized(image: &RgbImage, out: &mut Vec<f32>) {
    let Normalization { mean, std } = Architecture::DINOV2_SMALL.normalization;
    for channel in 0..3 {
        let scale = (1.0 / (255.0 * std[channel])) as f32;
        let shift = (-mean[channel] / std[channel]) as f32;
        let values = image.as_raw().iter().skip(channel).step_by(3);
        out.extend(values.map(|&byte| f32::from(byte) * scale + shift));
    }
}
