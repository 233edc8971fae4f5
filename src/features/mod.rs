//! From a model's tokens to what people ask for: pooled embeddings, PCA maps, attention maps,
//! likeness, pictures of them, classes. Pure.

pub mod attention;
pub mod head_stats;
pub mod npy;
pub mod pca;
pub mod pool;
pub mod probe;
pub mod render;
pub mod similarity;
pub mod vote;
