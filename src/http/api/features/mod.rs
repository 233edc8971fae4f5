//! Operations on the features of images.

pub(crate) mod anomaly;
pub(crate) mod attention;
pub(crate) mod attention_stats;
pub(crate) mod embed;
pub(crate) mod embeddings;
pub(crate) mod maps;
pub(crate) mod matching;
pub(crate) mod objects;
pub(crate) mod pca;
pub(crate) mod segments;
pub(crate) mod similarity;
