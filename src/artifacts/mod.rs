//! Files on disk: the cache folder, downloads, conversions, and reading what a converted model says
//! of itself.

mod convert;
mod disk;
mod download;
mod home;
mod mapped;
mod model_file;
mod store;

pub use convert::{convert, read_weights};
pub use disk::{remove_unfinished, sha256_file, write_atomically};
pub use download::{Download, download};
pub use home::Home;
pub use mapped::{Mapping, map_file};
pub use model_file::{Manifest, ModelFile, StoredWeight};
pub use store::{ModelState, ModelStore, Verified};

/// Told how far a long task is: what it is doing, units done and, if known, units in all.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, Option<u64>);
