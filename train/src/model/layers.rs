//! The layers of a DINOv2 block. Field names are those of Meta's code, so that parameters have the
//! names of its checkpoints.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, activation, module},
};
use dinoserve::model::{Architecture, Ffn};
use rand::{RngExt, rngs::ChaCha8Rng};

/// Standard deviation of an initial weight (DINO's `trunc_normal_(std=.02)` truncates at ±2, which
/// is never reached).
const WEIGHT_DEVIATION: f64 = 0.02;

/// Creates a parameter with normally distributed values.
pub(super) fn normal<const D: usize>(
    shape: [usize; D],
    deviation: f64,
    random: &mut ChaCha8Rng,
    device: &Device,
) -> Param<Tensor<D>> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| (standard_normal(random) * deviation) as f32)
        .collect();
    Param::from_data(TensorData::new(values, shape), device)
}

/// Draws by Box–Muller. It uses one value of each pair, since a model is initialized once.
fn standard_normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

fn filled<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::full(shape, value, device))
}

/// Creates a parameter of zeros.
pub(super) fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    filled(shape, 0.0, device)
}

/// A linear layer, `y = x·Wᵀ + b`. The weight is `[outputs, inputs]` as in PyTorch.
#[derive(Module, Debug)]
pub(super) struct Linear {
    pub(super) weight: Param<Tensor<2>>,
    pub(super) bias: Param<Tensor<1>>,
}

impl Linear {
    pub(super) fn new(
        inputs: usize,
        outputs: usize,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        Self {
            weight: normal([outputs, inputs], WEIGHT_DEVIATION, random, device),
            bias: zeros([outputs], device),
        }
    }

    /// Maps `[…, inputs]` to `[…, outputs]`.
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        module::linear(x, self.weight.val().transpose(), Some(self.bias.val()))
    }
}

/// Layer normalization over the last axis.
#[derive(Module, Debug)]
pub(super) struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    pub(super) fn new(architecture: &Architecture, device: &Device) -> Self {
        Self {
            weight: filled([architecture.dim], 1.0, device),
            bias: zeros([architecture.dim], device),
            epsilon: architecture.norm_eps.into(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        module::layer_norm(x, self.weight.val(), Some(self.bias.val()), self.epsilon)
    }
}

/// A learned factor per channel. It is small at first, so that a deep network starts near the
/// identity (Touvron et al., 2021).
#[derive(Module, Debug)]
pub(super) struct LayerScale {
    gamma: Param<Tensor<1>>,
}

impl LayerScale {
    pub(super) fn new(dim: usize, value: f32, device: &Device) -> Self {
        Self {
            gamma: filled([dim], value, device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        x * self.gamma.val().unsqueeze()
    }
}

/// The projection of patches to tokens: a convolution with stride and kernel of one patch, as a
/// product of matrices.
#[derive(Module, Debug)]
pub(super) struct PatchEmbed {
    proj: PatchProjection,
}

/// The parameters of [`PatchEmbed`]; the weight is `[dim, 3, patch, patch]`.
#[derive(Module, Debug)]
pub(super) struct PatchProjection {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

impl PatchEmbed {
    pub(super) fn new(
        architecture: &Architecture,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let dim = architecture.dim;
        let patch = architecture.patch.pixels();
        let weight = normal([dim, 3, patch, patch], WEIGHT_DEVIATION, random, device);
        Self {
            proj: PatchProjection {
                weight,
                bias: zeros([dim], device),
            },
        }
    }

    /// Maps `[batch, 3, height, width]` to `[batch, patches, dim]`, row by row.
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, width] = images.dims();
        let [dim, _, patch, _] = self.proj.weight.dims();
        let rows = height / patch;
        let columns = width / patch;
        let patches = images
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * patch * patch]);
        let weight = self
            .proj
            .weight
            .val()
            .reshape([dim, channels * patch * patch]);
        module::linear(patches, weight.transpose(), Some(self.proj.bias.val()))
    }
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub(super) struct Attention {
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    pub(super) fn new(dim: usize, heads: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        Self {
            qkv: Linear::new(dim, 3 * dim, random, device),
            proj: Linear::new(dim, dim, random, device),
            heads,
        }
    }

    /// Maps `[batch, tokens, dim]` to the same shape, and also returns the attention weights
    /// `[batch, heads, tokens, tokens]`.
    fn forward(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<4>) {
        let [batch, tokens, dim] = x.dims();
        let head_dim = dim / self.heads;
        let qkv = self
            .qkv
            .forward(x)
            .reshape([batch, tokens, 3, self.heads, head_dim])
            .permute([2, 0, 3, 1, 4]);
        let part = |index: usize| {
            qkv.clone()
                .narrow(0, index, 1)
                .reshape([batch, self.heads, tokens, head_dim])
        };
        // The queries are smaller than the scores, so scaling them is cheaper.
        let queries = part(0) * (head_dim as f64).powf(-0.5);
        let weights = activation::softmax(queries.matmul(part(1).transpose()), 3);
        let values = weights
            .clone()
            .matmul(part(2))
            .swap_dims(1, 2)
            .reshape([batch, tokens, dim]);
        (self.proj.forward(values), weights)
    }
}

/// The feed-forward network of a block.
#[derive(Module, Debug)]
pub(super) enum FeedForward {
    /// Linear, exact GELU, linear.
    Mlp(Mlp),
    /// silu(x₁)·x₂ of one wide layer, then a linear layer.
    Swiglu(Swiglu),
}

/// The layers of [`FeedForward::Mlp`].
#[derive(Module, Debug)]
pub(super) struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

/// The layers of [`FeedForward::Swiglu`].
#[derive(Module, Debug)]
pub(super) struct Swiglu {
    w12: Linear,
    w3: Linear,
}

impl FeedForward {
    fn new(architecture: &Architecture, random: &mut ChaCha8Rng, device: &Device) -> Self {
        let dim = architecture.dim;
        let hidden = architecture.ffn_hidden;
        match architecture.ffn {
            Ffn::Mlp => Self::Mlp(Mlp {
                fc1: Linear::new(dim, hidden, random, device),
                fc2: Linear::new(hidden, dim, random, device),
            }),
            Ffn::Swiglu => Self::Swiglu(Swiglu {
                w12: Linear::new(dim, 2 * hidden, random, device),
                w3: Linear::new(hidden, dim, random, device),
            }),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Mlp(mlp) => mlp.fc2.forward(activation::gelu(mlp.fc1.forward(x))),
            Self::Swiglu(swiglu) => {
                let halves = swiglu.w12.forward(x).chunk(2, 2);
                let gate = halves[0].clone();
                swiglu
                    .w3
                    .forward(activation::silu(gate) * halves[1].clone())
            }
        }
    }
}

/// One transformer block.
#[derive(Module, Debug)]
pub(super) struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: LayerScale,
    norm2: LayerNorm,
    mlp: FeedForward,
    ls2: LayerScale,
    /// Share of the images for which a branch is left out in training.
    #[module(skip)]
    drop_path: f64,
}

impl Block {
    pub(super) fn new(
        architecture: &Architecture,
        layer_scale: f32,
        drop_path: f64,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let dim = architecture.dim;
        Self {
            // Random weights are drawn in this order.
            mlp: FeedForward::new(architecture, random, device),
            attn: Attention::new(dim, architecture.heads, random, device),
            norm1: LayerNorm::new(architecture, device),
            ls1: LayerScale::new(dim, layer_scale, device),
            norm2: LayerNorm::new(architecture, device),
            ls2: LayerScale::new(dim, layer_scale, device),
            drop_path,
        }
    }

    /// Maps `[batch, tokens, dim]` to the same shape, and also returns the attention weights.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        drop: &mut Option<DropPath>,
    ) -> (Tensor<3>, Tensor<4>) {
        let (attention, weights) = self.attn.forward(self.norm1.forward(x.clone()));
        let x = x + self.drop_path(self.ls1.forward(attention), drop);
        let mlp_out = self.mlp.forward(self.norm2.forward(x.clone()));
        (x + self.drop_path(self.ls2.forward(mlp_out), drop), weights)
    }

    fn drop_path(&self, branch: Tensor<3>, drop: &mut Option<DropPath>) -> Tensor<3> {
        match drop {
            Some(drop) if self.drop_path > 0.0 => drop.apply(branch, self.drop_path),
            _ => branch,
        }
    }
}

/// Stochastic depth (Huang et al., 2016): leaves out whole branches per image, and scales up the
/// others. The choice depends only on the seed, so that a run can be repeated.
#[derive(Debug)]
pub struct DropPath(pub ChaCha8Rng);

impl DropPath {
    fn apply(&mut self, branch: Tensor<3>, rate: f64) -> Tensor<3> {
        let [batch, ..] = branch.dims();
        let scale = (1.0 / (1.0 - rate)) as f32;
        let factors: Vec<f32> = (0..batch)
            .map(|_| {
                if self.0.random::<f64>() < rate {
                    0.0
                } else {
                    scale
                }
            })
            .collect();
        let device = branch.device();
        branch * Tensor::from_data(TensorData::new(factors, [batch, 1, 1]), &device)
    }
}
