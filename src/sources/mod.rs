//! Where images come from: folders on disk.

mod folder;

pub use folder::{FoundImages, SkippedFiles, find_images, path_segments, relative_path};
