//! From a model's tokens to results: pooled embeddings, PCA maps, attention maps, similarity maps,
//! matches of two images, objects, anomalies, renderings, classes; audits and maps of many images.
//! Pure.

pub mod anomaly;
pub mod attention;
pub mod audit;
mod components;
mod cosines;
pub mod head_stats;
pub(crate) mod kmeans;
pub mod layout;
pub mod mask;
pub mod matching;
pub(crate) mod neighbors;
pub mod npy;
pub mod objects;
pub mod pca;
pub mod pool;
pub mod probe;
pub mod progress;
pub mod render;
pub mod segmentation;
pub mod similarity;
pub mod vote;
