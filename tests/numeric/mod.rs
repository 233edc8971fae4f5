//! Numeric results, compared with references made by other code.

mod anomaly;
mod avif;
mod checkpoints;
mod defects;
mod families;
mod formats;
mod goldens;
#[cfg(feature = "heic")]
mod heic;
mod parity;
mod patches;
mod pca;
mod positions;
mod preprocess;
mod probe;
mod segmentation;
mod weights;
