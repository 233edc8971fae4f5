//! Models on disk: the cache folder, downloads, conversion, and reading converted models.
//!
//! # Errors
//! `Kind::Artifact` for a file that is absent, damaged or of another format, `Kind::Download` for a
//! failed download, and `Kind::Io` for a file that cannot be read or written.

mod convert;
mod disk;
mod download;
mod home;
mod hub;
mod local_source;
mod manifest;
mod mapped;
mod model_file;
mod progress;
mod python;
mod store;
mod weight_file;

pub use convert::convert;
pub use disk::{NoWrites, remove_unfinished, sha256_file, write_atomically};
pub use download::download;
pub use home::Home;
pub use hub::Hub;
pub use manifest::{Manifest, ModelPaths};
pub(crate) use mapped::release_pages_of;
pub use mapped::{Mapping, map_file};
pub use model_file::{ModelFile, StoredWeight};
pub use progress::{Progress, Step};
pub use python::{PythonPackage, PythonPackages};
pub use store::{ModelState, ModelStore, Pulled};
pub use weight_file::{WeightFile, read_weights};
