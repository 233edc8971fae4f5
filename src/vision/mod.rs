//! From the bytes of an image file to the pixels a model sees. Pure: no network, no runtime, no
//! threads.
//!
//! Everything here but [`decode_fast`] is bit-equal to Pillow and torchvision, because slightly
//! different pixels give different features.

mod avif;
mod bmp;
mod color;
mod decode;
mod exif;
mod foreign;
mod formats;
mod gif;
#[cfg(feature = "heic")]
mod heic;
mod jpeg;
mod jpeg_head;
mod libjpeg;
mod limits;
mod opened;
mod orientation;
mod placement;
mod png;
mod pnm;
mod preprocessing;
mod raw;
mod resample;
mod rows;
mod signature;
mod size;
mod tags;
mod taps;
mod thumbnail;
mod tiff;
mod transform;
mod undecodable;
mod webp;

pub use color::{Background, Levels};
pub use decode::{
    DecodeOptions, decode, decode_fast, decode_whole, decoding_bytes, upright_bytes, upright_size,
};
pub use foreign::Foreign;
pub use formats::{FORMATS, Format, Identified, begins_as_image, identify, image_extensions};
pub use limits::DecodeLimits;
pub use orientation::Decoded;
pub use placement::Placement;
pub use preprocessing::{Difference, Preprocessing, PreprocessingOverrides};
pub use resample::{Window, resample_f32, resample_rgb};
pub use signature::HEAD_LENGTH;
pub use size::{Grid, PatchSize, Size};
pub use taps::{Kernel, ResampleFilter, Tap, Taps, taps};
pub use thumbnail::thumbnail;
pub use transform::{ResizeMode, ResizePlan, Transform};

/// An 8-bit RGB image, row-major.
pub type RgbImage = image::RgbImage;
