//! What follows the backbone in training: a projection head (three layers with GELU, normalization
//! to length 1, and cosine similarities with prototypes), or a linear classifier.

use anyhow::bail;
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, activation},
};
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::layers::{Linear, normal};

/// Section `head`: sizes of a projection head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadConfig {
    /// Width of the two hidden layers.
    pub hidden: usize,
    /// Width of the vectors that are compared with the prototypes.
    pub bottleneck: usize,
    /// Number of prototypes. DINO has 65,536 for a million images; small datasets need fewer.
    pub prototypes: usize,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self {
            hidden: 2048,
            bottleneck: 256,
            prototypes: 4096,
        }
    }
}

impl HeadConfig {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if [self.hidden, self.bottleneck, self.prototypes].contains(&0) {
            bail!("head.hidden, head.bottleneck and head.prototypes must be positive");
        }
        Ok(())
    }
}

/// Maps CLS to the logits that the loss is computed from.
#[allow(
    clippy::large_enum_variant,
    reason = "a network has one head, and burn has no modules in boxes"
)]
#[derive(Module, Debug)]
pub enum Head {
    /// Without labels: logits over prototypes.
    Projection(ProjectionHead),
    /// With labels: logits over classes.
    Classifier(Classifier),
}

impl Head {
    /// Maps `[n, dim]` to `[n, prototypes]` or `[n, classes]`.
    pub fn forward(&self, cls: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Projection(head) => head.forward(cls),
            Self::Classifier(classifier) => classifier.forward(cls),
        }
    }
}

/// Maps tokens to logits over prototypes.
#[derive(Module, Debug)]
pub struct ProjectionHead {
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
    /// `[prototypes, bottleneck]`; only their directions matter.
    prototypes: Param<Tensor<2>>,
}

impl ProjectionHead {
    pub(super) fn new(
        dim: usize,
        config: &HeadConfig,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        Self {
            fc1: Linear::new(dim, config.hidden, random, device),
            fc2: Linear::new(config.hidden, config.hidden, random, device),
            fc3: Linear::new(config.hidden, config.bottleneck, random, device),
            // Initialized as a layer of PyTorch: the longer the rows, the less a step turns them.
            prototypes: normal(
                [config.prototypes, config.bottleneck],
                1.0 / (3.0 * config.bottleneck as f64).sqrt(),
                random,
                device,
            ),
        }
    }

    /// Maps `[n, dim]` to `[n, prototypes]`: cosine similarities, not yet divided by a temperature.
    pub fn forward(&self, tokens: Tensor<2>) -> Tensor<2> {
        let x = activation::gelu(self.fc1.forward(tokens));
        let x = activation::gelu(self.fc2.forward(x));
        let x = unit_rows(self.fc3.forward(x));
        x.matmul(unit_rows(self.prototypes.val()).transpose())
    }
}

/// Maps CLS to logits over classes by one linear layer, as in supervised ViTs.
#[derive(Module, Debug)]
pub struct Classifier {
    fc: Linear,
}

impl Classifier {
    pub(super) fn new(
        dim: usize,
        classes: usize,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        Self {
            fc: Linear::new(dim, classes, random, device),
        }
    }

    fn forward(&self, cls: Tensor<2>) -> Tensor<2> {
        self.fc.forward(cls)
    }
}

/// Divides each row by its length, or by 1e-12 if that is larger
/// (`torch.nn.functional.normalize`).
pub(crate) fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    let lengths = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / lengths
}
