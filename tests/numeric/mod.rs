//! Numeric results, compared with references made by other code.

mod checkpoints;
mod formats;
mod goldens;
mod pca;
mod positions;
mod preprocess;
mod probe;
mod weights;
