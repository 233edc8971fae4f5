//! From a model's tokens to results: pooled embeddings, PCA maps, attention maps, similarity maps,
//! matches of two images, objects, renderings, classes. Pure.

pub mod attention;
mod cosines;
pub mod head_stats;
pub mod mask;
pub mod matching;
pub mod npy;
pub mod objects;
pub mod pca;
pub mod pool;
pub mod probe;
pub mod render;
pub mod similarity;
pub mod vote;
