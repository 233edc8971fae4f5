//! The DINOv2 vision transformer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use dinoserve::{
    model::{Ffn, ModelSpec, PositionRule, PositionTable},
    vision::{Grid, PATCH},
};
use ndarray::Array2;
use rand::rngs::ChaCha8Rng;

use super::layers::{
    Block, DropPath, FeedForward, LayerNorm, Mlp, PatchEmbed, Swiglu, normal, zeros,
};

/// Standard deviation of fresh tokens of registers (Meta's code draws them, and the CLS token, with
/// 1e-6).
const TOKEN_DEVIATION: f64 = 1e-6;
const POSITION_DEVIATION: f64 = 0.02;

/// Images to tokens.
#[derive(Module, Debug)]
pub struct Backbone {
    cls_token: Param<Tensor<3>>,
    /// `[1, 1 + native², dim]`, CLS first.
    pos_embed: Param<Tensor<3>>,
    register_tokens: Option<Param<Tensor<3>>>,
    /// `[1, dim]`: stands in for patches that are hidden from the student.
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
    /// Where CLS looked in the last block: `[batch, heads, 1 + registers + patches]`.
    pub attention: Tensor<3>,
}

/// Patches that are hidden: for each of the batch, and in it each patch, whether it is.
#[derive(Debug, Clone, Copy)]
pub struct Masked<'a>(pub &'a [Vec<bool>]);

impl Masked<'_> {
    /// Where the hidden patches lie among all patches of the batch, row by row.
    pub fn indices(self, device: &Device) -> Tensor<1, Int> {
        let flat = self
            .0
            .iter()
            .flatten()
            .enumerate()
            .filter(|(_, hidden)| **hidden);
        let indices: Vec<i64> = flat.map(|(index, _)| index as i64).collect();
        let count = indices.len();
        Tensor::from_data(TensorData::new(indices, [count]), device)
    }
}

impl Backbone {
    /// A backbone with random weights. `drop_path` is the rate of the last block; it rises linearly
    /// from 0 at the first.
    pub fn new(
        spec: &ModelSpec,
        drop_path: f64,
        layer_scale: f32,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let dim = spec.dim;
        let places = spec.native_grid * spec.native_grid;
        let registers = (spec.registers > 0)
            .then(|| normal([1, spec.registers, dim], TOKEN_DEVIATION, random, device));
        let mut block = |index: usize| {
            let mlp = match spec.ffn {
                Ffn::Mlp => FeedForward::Mlp(Mlp::new(dim, spec.ffn_hidden, random, device)),
                Ffn::Swiglu => {
                    FeedForward::Swiglu(Swiglu::new(dim, spec.ffn_hidden, random, device))
                }
            };
            let rate = drop_path * index as f64 / (spec.depth.max(2) - 1) as f64;
            Block::new(dim, spec.heads, mlp, layer_scale, rate, random, device)
        };
        let blocks = (0..spec.depth).map(&mut block).collect();
        Self {
            cls_token: normal([1, 1, dim], TOKEN_DEVIATION, random, device),
            pos_embed: normal([1, 1 + places, dim], POSITION_DEVIATION, random, device),
            register_tokens: registers,
            mask_token: zeros([1, dim], device),
            patch_embed: PatchEmbed::new(dim, PATCH, random, device),
            blocks,
            norm: LayerNorm::new(dim, device),
            positions: Positions::new(spec),
        }
    }

    /// Tokens of `images` `[batch, 3, height, width]`, normalized by mean and deviation as for the
    /// server; both sides are whole patches. `masked` patches are hidden; without `drop` all
    /// branches are taken.
    pub fn forward(
        &self,
        images: Tensor<4>,
        masked: Option<Masked<'_>>,
        drop: &mut Option<DropPath>,
    ) -> Tokens {
        let [batch, _, height, width] = images.dims();
        let mut patches = self.patch_embed.forward(images);
        if let Some(masked) = masked {
            patches = self.hide(patches, masked);
        }
        let positions = self.positions.at(
            self.pos_embed.val(),
            Grid {
                height: height / PATCH,
                width: width / PATCH,
            },
        );
        let [_, places, dim] = positions.dims();
        let cls =
            (self.cls_token.val() + positions.clone().narrow(1, 0, 1)).expand([batch, 1, dim]);
        let patches = patches + positions.narrow(1, 1, places - 1);
        let registers = self.register_tokens.as_ref().map(|tokens| {
            let [_, count, _] = tokens.dims();
            tokens.val().expand([batch, count, dim])
        });
        let before = 1 + registers.as_ref().map_or(0, |tokens| tokens.dims()[1]);

        let mut x = Tensor::cat(
            [Some(cls), registers, Some(patches)]
                .into_iter()
                .flatten()
                .collect(),
            1,
        );
        let mut looked = None;
        for block in &self.blocks {
            let (out, weights) = block.forward(x, drop);
            x = out;
            looked = Some(weights);
        }
        let x = self.norm.forward(x);
        let looked = looked.expect("a backbone has blocks");
        let [_, heads, tokens, _] = looked.dims();
        Tokens {
            cls: x.clone().narrow(1, 0, 1).reshape([batch, dim]),
            registers: (before > 1).then(|| x.clone().narrow(1, 1, before - 1)),
            patches: x.narrow(1, before, places - 1),
            attention: looked.narrow(2, 0, 1).reshape([batch, heads, tokens]),
        }
    }

    fn hide(&self, patches: Tensor<3>, masked: Masked<'_>) -> Tensor<3> {
        let [batch, count, _] = patches.dims();
        let hidden: Vec<f32> = masked
            .0
            .iter()
            .flatten()
            .map(|&hidden| f32::from(u8::from(hidden)))
            .collect();
        let hidden = Tensor::<3>::from_data(
            TensorData::new(hidden, [batch, count, 1]),
            &patches.device(),
        );
        let shown = hidden.clone().neg() + 1.0;
        patches * shown + self.mask_token.val().unsqueeze::<3>() * hidden
    }
}

/// How the position table is brought to other grids. The server's rule is linear, so that applying
/// it to the unit matrix gives a matrix, and the product with that has a gradient.
#[derive(Debug, Clone)]
struct Positions {
    spec: ModelSpec,
    /// Per grid `[patches, native²]`. Few grids occur: that of each size of crops.
    matrices: Arc<Mutex<HashMap<Grid, Arc<Vec<f32>>>>>,
}

impl Positions {
    fn new(spec: &ModelSpec) -> Self {
        Self {
            spec: spec.clone(),
            matrices: Arc::default(),
        }
    }

    /// The table `[1, 1 + native², dim]` for a grid: `[1, 1 + patches, dim]`.
    fn at(&self, table: Tensor<3>, grid: Grid) -> Tensor<3> {
        let native = self.spec.native_grid;
        if (grid.height, grid.width) == (native, native) {
            return table;
        }
        let places = native * native;
        let matrix = self.matrix(grid);
        let matrix = TensorData::new(matrix.to_vec(), [1, grid.patches(), places]);
        let matrix = Tensor::<3>::from_data(matrix, &table.device());
        let patches = matrix.matmul(table.clone().narrow(1, 1, places));
        Tensor::cat(vec![table.narrow(1, 0, 1), patches], 1)
    }

    fn matrix(&self, grid: Grid) -> Arc<Vec<f32>> {
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let made = matrices.entry(grid).or_insert_with(|| {
            let places = self.spec.native_grid * self.spec.native_grid;
            let spec = ModelSpec {
                dim: places,
                ..self.spec.clone()
            };
            let mut unit = Array2::zeros((1 + places, places));
            (0..places).for_each(|place| unit[(1 + place, place)] = 1.0);
            let table = PositionTable::new(unit, &spec, PositionRule::Hub).interpolate(grid);
            let (mut values, _) = table.into_raw_vec_and_offset();
            // The row of CLS, of which there is nothing to interpolate.
            values.drain(..places);
            Arc::new(values)
        });
        Arc::clone(made)
    }
}
