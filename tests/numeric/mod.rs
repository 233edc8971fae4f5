//! Numeric results, compared with references made by other code.

mod checkpoints;
mod defects;
mod formats;
mod goldens;
mod pca;
mod positions;
mod preprocess;
mod probe;
mod weights;
