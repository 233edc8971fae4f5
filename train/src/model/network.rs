//! The student or the teacher.

use burn::{module::Module, tensor::Device};
use dinoserve::model::Architecture;
use rand::rngs::ChaCha8Rng;

use super::{Backbone, Head, HeadConfig};

/// A backbone, the head of its CLS token and, for the masked-patch loss, the head of its patches.
#[derive(Module, Debug)]
pub struct Network {
    /// Maps images to tokens.
    pub backbone: Backbone,
    /// Maps CLS to logits over the prototypes.
    pub head: Head,
    /// Maps patch tokens to logits over separate prototypes (iBOT).
    pub patch_head: Option<Head>,
}

impl Network {
    /// Creates a network with random weights.
    pub fn new(
        architecture: &Architecture,
        drop_path: f64,
        layer_scale: f32,
        head: &HeadConfig,
        with_patch_head: bool,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        Self {
            backbone: Backbone::new(architecture, drop_path, layer_scale, random, device),
            head: Head::new(architecture.dim, head, random, device),
            patch_head: with_patch_head.then(|| Head::new(architecture.dim, head, random, device)),
        }
    }
}
