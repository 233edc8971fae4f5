//! Section `run`: seed, shards, and what is written when.

use serde::{Deserialize, Serialize};

use crate::check;

/// Section `run` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Number of parts of a batch that are computed at the same time, with KoLeo of at least 16
    /// images each. 0 means two for each core, or one on a GPU. Drop path and KoLeo's neighbors
    /// depend on it, so a run keeps its value.
    pub shards: usize,
    /// Number of steps between two lines of metrics.
    pub log_steps: usize,
    /// Number of epochs between two checkpoints.
    pub checkpoint_epochs: usize,
    /// Number of epochs between two measurements of the k-NN accuracy.
    pub knn_epochs: usize,
    /// Number of neighbors that vote.
    #[serde(rename = "knn_neighbours")]
    pub knn_neighbors: usize,
    /// Number of epochs between two sheets of attention and PCA maps.
    #[serde(rename = "picture_epochs")]
    pub map_epochs: usize,
    /// Number of images on such a sheet.
    #[serde(rename = "pictures")]
    pub map_images: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            shards: 0,
            log_steps: 10,
            checkpoint_epochs: 1,
            knn_epochs: 5,
            knn_neighbors: 20,
            map_epochs: 5,
            map_images: 6,
        }
    }
}

impl RunConfig {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        check::at_least_one(&[
            ("run.log_steps", self.log_steps),
            ("run.checkpoint_epochs", self.checkpoint_epochs),
            ("run.knn_epochs", self.knn_epochs),
            ("run.knn_neighbours", self.knn_neighbors),
            ("run.picture_epochs", self.map_epochs),
        ])
    }
}
