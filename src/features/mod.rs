//! From a model's tokens to results: pooled embeddings, PCA maps, attention maps, similarity maps,
//! renderings of maps, classes. Pure.

pub mod attention;
pub mod head_stats;
pub mod npy;
pub mod pca;
pub mod pool;
pub mod probe;
pub mod render;
pub mod similarity;
pub mod vote;
