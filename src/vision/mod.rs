//! From the bytes of an image file to the pixels a model sees. Pure: no network, no runtime, no
//! threads.
//!
//! Everything here but [`decode_fast`] is bit-equal to what Pillow and torchvision do, because a
//! feature that is computed from slightly different pixels is a different feature.

mod decode;
mod jpeg;
mod preprocess;
mod preprocessing;
mod resample;
mod thumbnail;
mod tiff;
mod webp;

pub use decode::{Background, DecodeLimits, DecodeOptions, decode, decode_fast};
pub use preprocess::{Grid, MEAN, PATCH, ResizeMode, ResizePlan, STD, Transform};
pub use preprocessing::{Difference, Preprocessing, PreprocessingOverrides};
pub use resample::{Kernel, ResampleFilter, Taps, Window, resample_f32, resample_rgb, taps};
pub use thumbnail::thumbnail;

/// An 8-bit RGB image, row-major.
pub type RgbImage = image::RgbImage;
