//! From a source of images to batches of augmented crops.

mod augment;
mod batch;
mod color;
mod crops;
mod dataset;
mod images;
mod loader;
mod pixels;

pub use self::{
    augment::{Augmentation, blur},
    batch::{Batch, MaskedPatches},
    color::{brightness, contrast, hue, saturation, solarize},
    crops::{CropConfig, Views},
    dataset::{Dataset, UnreadableImages},
    images::{LabeledList, list_images, read_image},
    loader::Loader,
    pixels::append_normalized,
};
