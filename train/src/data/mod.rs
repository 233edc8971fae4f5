//! From a folder of images to batches of augmented crops.

mod augment;
mod color;
mod crops;
mod loader;
mod pixels;

pub(crate) use self::loader::mixed;
pub use self::{
    augment::{Augmentation, blurred},
    color::{brightness, contrast, hue, saturation, solarise},
    crops::{CropConfig, Views},
    loader::{Loader, Pictures, Unreadable},
    pixels::{normalized, read_image},
};
