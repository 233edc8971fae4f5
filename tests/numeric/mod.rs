//! Numeric results, compared with references made by other code.

mod avif;
mod checkpoints;
mod defects;
mod formats;
mod goldens;
mod parity;
mod pca;
mod positions;
mod preprocess;
mod probe;
mod weights;
