//! The student or the teacher.

use burn::{module::Module, tensor::Device};
use dinoserve::model::Architecture;
use rand::rngs::ChaCha8Rng;

use super::{
    Backbone, Head, HeadConfig,
    head::{Classifier, ProjectionHead},
};

/// A backbone, the head of its CLS token and, for the masked-patch loss, the head of its patches.
#[derive(Module, Debug)]
pub struct Network {
    /// Maps images to tokens.
    pub backbone: Backbone,
    /// Maps CLS to logits.
    pub head: Head,
    /// Maps patch tokens to logits over separate prototypes (iBOT).
    pub patch_head: Option<ProjectionHead>,
}

/// The heads that a network is created with.
#[derive(Debug, Clone, Copy)]
pub enum Heads<'a> {
    /// A projection head for CLS and, with `patches`, one for the patches.
    Projections {
        /// Sizes of each head.
        config: &'a HeadConfig,
        /// Whether the patches have a head.
        patches: bool,
    },
    /// A classifier for CLS.
    Classifier {
        /// Number of classes.
        classes: usize,
    },
}

impl Network {
    /// Creates a network with random weights. The backbone's depend on `random` alone, whatever
    /// the heads are.
    pub fn new(
        architecture: &Architecture,
        drop_path: f64,
        layer_scale: f32,
        heads: Heads<'_>,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let dim = architecture.dim;
        let backbone = Backbone::new(architecture, drop_path, layer_scale, random, device);
        let (head, patch_head) = match heads {
            Heads::Projections { config, patches } => {
                let mut projection = || ProjectionHead::new(dim, config, random, device);
                (Head::Projection(projection()), patches.then(projection))
            }
            Heads::Classifier { classes } => {
                let classifier = Classifier::new(dim, classes, random, device);
                (Head::Classifier(classifier), None)
            }
        };
        Self {
            backbone,
            head,
            patch_head,
        }
    }
}
