//! From a folder of images to batches of augmented crops.

mod augment;
mod batch;
mod color;
mod crops;
mod dataset;
mod loader;
mod pixels;

pub use self::{
    augment::{Augmentation, blur},
    batch::{Batch, MaskedPatches},
    color::{brightness, contrast, hue, saturation, solarize},
    crops::{CropConfig, Views},
    dataset::{Dataset, UnreadableFiles},
    loader::Loader,
    pixels::{append_normalized, read_image},
};
