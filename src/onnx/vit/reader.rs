//! Reads weights and computes the fingerprint of what was read.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    model::{Architecture, RopePeriods},
    onnx::{Precision, weights::Weights},
};

/// Version of the graph that [`build`](super::build) makes. It is part of a model's fingerprint:
/// raise it whenever a change of the graph can change a feature.
pub const GRAPH_VERSION: u32 = 1;

/// Reads weights by the hub's names, and stores the hash of each, which is the same for all file
/// formats.
pub(super) struct Reader<'a> {
    weights: &'a Weights,
    hashes: BTreeMap<String, [u8; 32]>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(weights: &'a Weights) -> Self {
        Self {
            weights,
            hashes: BTreeMap::new(),
        }
    }

    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.weights.read(name, shape)?;
        if !self.hashes.contains_key(name) {
            let mut hash = Sha256::new();
            hash.update(format!("{name} {shape:?}\n"));
            hash.update(bytemuck::cast_slice::<f32, u8>(&values));
            self.hashes.insert(name.to_owned(), hash.finalize().into());
        }
        Ok(values)
    }

    /// Reads the periods of rotary positions, `[head_dim / 4]`: those of the file, else computed
    /// ones. Published files of Meta have periods that were rounded to bfloat16.
    pub(super) fn rope_periods(&mut self, architecture: &Architecture) -> Result<Vec<f32>> {
        let name = "rope_embed.periods";
        if self.weights.has(name) {
            let periods = self.read(name, &[architecture.head_dim() / 4])?;
            if RopePeriods::are_usable(&periods, architecture) {
                Ok(periods)
            } else {
                Err(Error::artifact(format!(
                    "tensor {name} has values that are not positive; leave it out to have the \
                     periods computed"
                )))
            }
        } else {
            Ok(RopePeriods::computed(architecture))
        }
    }

    /// Computes the fingerprint. It does not depend on the order in which weights were read, and
    /// covers the architecture as far as the names and shapes of the weights do not.
    pub(super) fn fingerprint(&self, architecture: &Architecture, precision: Precision) -> String {
        let mut hash = Sha256::new();
        hash.update(format!(
            "dinoserve graph {GRAPH_VERSION} {precision} {}\n",
            architecture.fingerprint_text()
        ));
        for tensor in self.hashes.values() {
            hash.update(tensor);
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
