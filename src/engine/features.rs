//! Inputs and outputs of the model.

use std::time::Duration;

use image::imageops;
use ndarray::{Array1, Array2, Array3};

use crate::vision::{Grid, RgbImage};

/// An image in the model's input size: `[grid.height·patch, grid.width·patch]` RGB.
#[derive(Debug, Clone)]
pub struct Input {
    /// Pixels.
    pub pixels: RgbImage,
    /// Patch grid.
    pub grid: Grid,
}

impl Input {
    /// Turns the input to the right by quarters, 0 to 3.
    pub(crate) fn turned(self, quarters: u8) -> Self {
        let Self { pixels, grid } = self;
        let pixels = match quarters {
            0 => pixels,
            1 => imageops::rotate90(&pixels),
            2 => imageops::rotate180(&pixels),
            _ => imageops::rotate270(&pixels),
        };
        let grid = match quarters % 2 {
            0 => grid,
            _ => Grid {
                height: grid.width,
                width: grid.height,
            },
        };
        Self { pixels, grid }
    }
}

/// The model's outputs that a job needs; the others are not copied from the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RequestedOutputs {
    /// Patch tokens of the last block.
    pub patch_tokens: bool,
    /// Register tokens of the last block, if the model has any.
    pub registers: bool,
    /// Softmax attention of CLS in the last block.
    pub attention: bool,
    /// CLS tokens of the last blocks.
    pub layers_cls: bool,
    /// Patch tokens of the last blocks.
    pub layers_patch: bool,
}

impl RequestedOutputs {
    /// Only the patch tokens.
    pub(crate) const PATCH_TOKENS: Self = Self {
        patch_tokens: true,
        registers: false,
        attention: false,
        layers_cls: false,
        layers_patch: false,
    };

    /// Returns the outputs of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            patch_tokens: self.patch_tokens || other.patch_tokens,
            registers: self.registers || other.registers,
            attention: self.attention || other.attention,
            layers_cls: self.layers_cls || other.layers_cls,
            layers_patch: self.layers_patch || other.layers_patch,
        }
    }
}

/// Features of one image. The final norm is applied to all tokens.
#[derive(Debug, Clone)]
pub struct Features {
    /// Patch grid.
    pub grid: Grid,
    /// CLS token, `[dim]`.
    pub cls: Array1<f32>,
    /// Patch tokens, `[patches, dim]`, row-major over the grid.
    pub patch_tokens: Option<Array2<f32>>,
    /// Register tokens, `[registers, dim]`.
    pub registers: Option<Array2<f32>>,
    /// Attention of CLS, `[heads, 1 + registers + patches]`.
    pub attention: Option<Array2<f32>>,
    /// CLS tokens, `[layers, dim]`, the last block last.
    pub layers_cls: Option<Array2<f32>>,
    /// Patch tokens, `[layers, patches, dim]`, the last block last.
    pub layers_patch: Option<Array3<f32>>,
    /// Time that the job spent in the queue.
    pub queue_time: Duration,
    /// Time that the runtime spent on the batch.
    pub inference_time: Duration,
}
