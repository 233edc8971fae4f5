//! The DINOv2 vision transformer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use dinoserve::{
    model::{Architecture, PositionRule, PositionTable},
    vision::{Grid, Size},
};
use ndarray::Array2;
use rand::rngs::ChaCha8Rng;

use super::layers::{Block, DropPath, LayerNorm, PatchEmbed, normal, zeros};
use crate::data::MaskedPatches;

/// Standard deviation of the initial CLS and register tokens, as in Meta's code.
const TOKEN_DEVIATION: f64 = 1e-6;
/// Standard deviation of the initial position table.
const POSITION_DEVIATION: f64 = 0.02;

/// Maps images to tokens.
#[derive(Module, Debug)]
pub struct Backbone {
    cls_token: Param<Tensor<3>>,
    /// `[1, 1 + native², dim]`, CLS first.
    pos_embed: Param<Tensor<3>>,
    register_tokens: Option<Param<Tensor<3>>>,
    /// `[1, dim]`: replaces the masked patches.
    mask_token: Param<Tensor<2>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    positions: Positions,
}

/// Normalized tokens of the last block.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `[batch, dim]`.
    pub cls: Tensor<2>,
    /// `[batch, registers, dim]`.
    pub registers: Option<Tensor<3>>,
    /// `[batch, patches, dim]`.
    pub patches: Tensor<3>,
    /// Attention of CLS in the last block: `[batch, heads, 1 + registers + patches]`.
    pub attention: Tensor<3>,
}

impl Backbone {
    /// Creates a backbone with random weights. `drop_path` is the rate of the last block; the rate
    /// rises linearly from 0 at the first.
    pub fn new(
        architecture: &Architecture,
        drop_path: f64,
        layer_scale: f32,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let dim = architecture.dim;
        let registers = match architecture.registers {
            0 => None,
            count => Some(normal([1, count, dim], TOKEN_DEVIATION, random, device)),
        };
        let blocks = (0..architecture.depth)
            .map(|index| {
                let rate = drop_path * index as f64 / (architecture.depth.max(2) - 1) as f64;
                Block::new(architecture, layer_scale, rate, random, device)
            })
            .collect();
        let positions = 1 + architecture.native_grid * architecture.native_grid;
        Self {
            cls_token: normal([1, 1, dim], TOKEN_DEVIATION, random, device),
            pos_embed: normal([1, positions, dim], POSITION_DEVIATION, random, device),
            register_tokens: registers,
            mask_token: zeros([1, dim], device),
            patch_embed: PatchEmbed::new(architecture, random, device),
            blocks,
            norm: LayerNorm::new(architecture, device),
            positions: Positions::new(architecture),
        }
    }

    /// Returns the architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.positions.architecture
    }

    /// Computes the tokens of `images` `[batch, 3, height, width]`. Their pixels are normalized as
    /// in the server, and both sides are multiples of the patch size. The mask token replaces
    /// patches in `masks`. Without `drop` no branch is left out.
    pub fn forward(
        &self,
        images: Tensor<4>,
        masks: Option<&MaskedPatches>,
        drop: &mut Option<DropPath>,
    ) -> Tokens {
        let [batch, _, height, width] = images.dims();
        let mut patches = self.patch_embed.forward(images);
        if let Some(masks) = masks {
            patches = self.mask(patches, masks);
        }
        let grid = self.architecture().patch.grid(Size { width, height });
        let positions = self.positions.interpolate(self.pos_embed.val(), grid);
        let [_, length, dim] = positions.dims();
        let cls =
            (self.cls_token.val() + positions.clone().narrow(1, 0, 1)).expand([batch, 1, dim]);
        let patches = patches + positions.narrow(1, 1, length - 1);
        let registers = self.register_tokens.as_ref().map(|tokens| {
            let [_, count, _] = tokens.dims();
            tokens.val().expand([batch, count, dim])
        });
        let first_patch = 1 + registers.as_ref().map_or(0, |tokens| tokens.dims()[1]);

        let mut x = Tensor::cat(
            [Some(cls), registers, Some(patches)]
                .into_iter()
                .flatten()
                .collect(),
            1,
        );
        let mut attention = None;
        for block in &self.blocks {
            let (out, weights) = block.forward(x, drop);
            x = out;
            attention = Some(weights);
        }
        let x = self.norm.forward(x);
        let attention = attention.expect("a backbone has blocks");
        let [_, heads, tokens, _] = attention.dims();
        Tokens {
            cls: x.clone().narrow(1, 0, 1).reshape([batch, dim]),
            registers: (first_patch > 1).then(|| x.clone().narrow(1, 1, first_patch - 1)),
            patches: x.narrow(1, first_patch, length - 1),
            attention: attention.narrow(2, 0, 1).reshape([batch, heads, tokens]),
        }
    }

    /// Repositions the masked ones of `patches` `[batch, patches, dim]` by the mask token.
    fn mask(&self, patches: Tensor<3>, masks: &MaskedPatches) -> Tensor<3> {
        let masked = masks.as_factors(&patches.device());
        let visible = masked.clone().neg() + 1.0;
        patches * visible + self.mask_token.val().unsqueeze::<3>() * masked
    }
}

/// Interpolates the position table to other grids. The server's rule is linear: applied to the unit
/// matrix it gives a matrix, and the product with that matrix has a gradient.
#[derive(Debug, Clone)]
struct Positions {
    architecture: Architecture,
    /// Interpolation matrix of each grid, `[patches, native²]`. There are few: one for each crop
    /// size.
    matrices: Arc<Mutex<HashMap<Grid, Arc<Vec<f32>>>>>,
}

impl Positions {
    fn new(architecture: &Architecture) -> Self {
        Self {
            architecture: architecture.clone(),
            matrices: Arc::default(),
        }
    }

    /// Interpolates the table `[1, 1 + native², dim]` to a grid: `[1, 1 + patches, dim]`.
    fn interpolate(&self, table: Tensor<3>, grid: Grid) -> Tensor<3> {
        let native = self.architecture.native_grid;
        if (grid.height, grid.width) == (native, native) {
            return table;
        }
        let positions = native * native;
        let matrix = self.matrix(grid);
        let matrix = TensorData::new(matrix.to_vec(), [1, grid.patches(), positions]);
        let matrix = Tensor::<3>::from_data(matrix, &table.device());
        let patches = matrix.matmul(table.clone().narrow(1, 1, positions));
        Tensor::cat(vec![table.narrow(1, 0, 1), patches], 1)
    }

    fn matrix(&self, grid: Grid) -> Arc<Vec<f32>> {
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let matrix = matrices.entry(grid).or_insert_with(|| {
            let native = self.architecture.native_grid;
            let positions = native * native;
            let architecture = Architecture {
                dim: positions,
                ..self.architecture.clone()
            };
            let mut unit = Array2::zeros((1 + positions, positions));
            (0..positions).for_each(|index| unit[(1 + index, index)] = 1.0);
            let table = PositionTable::new(unit, &architecture, PositionRule::Hub);
            let table = table.interpolate(grid);
            let (mut values, _) = table.into_raw_vec_and_offset();
            // Drops the row of CLS, which is not interpolated.
            values.drain(..positions);
            Arc::new(values)
        });
        Arc::clone(matrix)
    }
}
