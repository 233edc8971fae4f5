//! What is trained: a DINOv2 backbone with its projection heads, as `burn` modules whose parameters
//! have the hub's names.

mod backbone;
mod head;
mod layers;
mod parameters;
mod weights;

use burn::{module::Module, tensor::Device};
use dinoserve::model::ModelSpec;
use rand::rngs::ChaCha8Rng;

pub use self::{
    backbone::{Backbone, Masked, Tokens},
    head::{Head, HeadConfig},
    layers::DropPath,
    parameters::{FlatTensors, flatten, load, names_of},
    weights::{HostTensor, initialize_from, to_hugging_face},
};

pub(crate) use self::{
    head::unit_rows,
    parameters::{change, gradients_of},
};

/// The student or the teacher: a backbone, the head of its CLS token and, for the masked-patch
/// loss, one of its patches.
#[derive(Module, Debug)]
pub struct Network {
    /// Images to tokens.
    pub backbone: Backbone,
    /// CLS to logits over the prototypes.
    pub head: Head,
    /// Patch tokens to logits over prototypes of their own (iBOT).
    pub patch_head: Option<Head>,
}

impl Network {
    /// A network with random weights.
    pub fn new(
        spec: &ModelSpec,
        drop_path: f64,
        layer_scale: f32,
        head: &HeadConfig,
        with_patch_head: bool,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        Self {
            backbone: Backbone::new(spec, drop_path, layer_scale, random, device),
            head: Head::new(spec.dim, head, random, device),
            patch_head: with_patch_head.then(|| Head::new(spec.dim, head, random, device)),
        }
    }
}
