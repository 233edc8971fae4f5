//! Numbers against references that other code made.

mod goldens;
mod pca;
mod positions;
mod preprocess;
mod probe;
mod weights;
