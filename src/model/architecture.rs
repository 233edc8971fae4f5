//! The architecture of a vision transformer, as far as the graph and the pixels depend on it.
//!
//! Defaults are those of DINOv2. A value is stored only where it differs from them, so that the
//! descriptions in files that were converted before a field existed stay the same.

use serde::{Deserialize, Serialize};

use crate::{names::option_enum, vision::PatchSize};

/// A vision transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Width of a token.
    pub dim: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    /// Number of attention heads; `dim / heads` is the head dimension.
    pub heads: usize,
    /// Number of register tokens, which follow CLS.
    pub registers: usize,
    /// Kind of feed-forward network.
    pub ffn: Ffn,
    /// Hidden width of the feed-forward network (for SwiGLU, of each of the two halves).
    pub ffn_hidden: usize,
    /// Side of the grid that the position table was trained on, in patches; 0 without a table.
    #[serde(default, skip_serializing_if = "is_default")]
    pub native_grid: usize,
    /// Side of a patch, in pixels.
    #[serde(default = "dinov2_patch", skip_serializing_if = "is_dinov2_patch")]
    pub patch: PatchSize,
    /// Normalization of the pixels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub normalization: Normalization,
    /// Term that LayerNorm adds to the variance.
    #[serde(default = "dinov2_eps", skip_serializing_if = "is_dinov2_eps")]
    pub norm_eps: f32,
    /// Kind of position encoding.
    #[serde(default, skip_serializing_if = "is_default")]
    pub positions: Positions,
    /// How a position table is interpolated to other grids; `None` for DINOv2's choice, which
    /// depends on the registers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interpolation: Option<Interpolation>,
    /// Whether the output of attention and of the feed-forward network is scaled per channel
    /// (LayerScale).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub layer_scale: bool,
    /// Whether queries, keys and values have biases. With rotary positions some may be absent.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub qkv_bias: bool,
}

option_enum! {
    /// Kind of feed-forward network.
    pub enum Ffn {
        /// Linear, exact GELU, linear.
        Mlp,
        /// silu(x₁)·x₂ of one wide linear layer, then a linear layer.
        Swiglu,
    }
}

option_enum! {
    /// Kind of position encoding.
    #[derive(Default)]
    pub enum Positions {
        /// A trained table, which is interpolated to the image's grid and added to the tokens.
        #[default]
        Learned,
        /// Queries and keys of patches are rotated in every block, by angles that follow from the
        /// patch's place in the image.
        Rope,
    }
}

option_enum! {
    /// How a position table is interpolated to other grids, in the code of a model's authors.
    pub enum Interpolation {
        /// Bicubic, scaled by `(n + 0.1) / native`: DINO, and DINOv2 without registers.
        Offset,
        /// Bicubic with antialiasing: DINOv2 with registers, and timm.
        Antialiased,
    }
}

/// Normalization of pixels from 0..1: `(pixel - mean) / std`, per channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Mean of red, green and blue.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue.
    pub std: [f64; 3],
}

impl Default for Normalization {
    fn default() -> Self {
        Architecture::DINOV2_SMALL.normalization
    }
}

/// Maximum of every size: more than ten times that of the largest DINOv2, and small enough that a
/// product of three fits a word.
const MAX_DIMENSION: usize = 1 << 16;

impl Architecture {
    /// Maximum width of a token, and of every other size.
    pub const MAX_SIZE: usize = MAX_DIMENSION;

    /// Maximum number of last blocks whose tokens the graph outputs.
    pub const MAX_LAYERS: usize = 4;

    /// DINOv2 ViT-S/14. The other variants of DINOv2 differ only in the fields without a default.
    pub const DINOV2_SMALL: Self = Self {
        dim: 384,
        depth: 12,
        heads: 6,
        registers: 0,
        ffn: Ffn::Mlp,
        ffn_hidden: 1536,
        native_grid: 37,
        patch: PatchSize::new(14),
        // ImageNet's.
        normalization: Normalization {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        },
        norm_eps: 1e-6,
        positions: Positions::Learned,
        interpolation: None,
        layer_scale: true,
        qkv_bias: true,
    };

    /// Returns the number of tokens in front of the patch tokens: CLS and the registers.
    pub fn prefix_tokens(&self) -> usize {
        1 + self.registers
    }

    /// Returns the width of a head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Returns the shape of the position table: CLS and the native grid, by `dim`.
    pub fn position_table_shape(&self) -> (usize, usize) {
        (1 + self.native_grid * self.native_grid, self.dim)
    }

    /// Returns how the position table is interpolated to other grids.
    pub fn interpolation(&self) -> Interpolation {
        self.interpolation.unwrap_or(match self.registers {
            0 => Interpolation::Offset,
            _ => Interpolation::Antialiased,
        })
    }

    /// Returns whether queries and keys are rotated.
    pub fn has_rope(&self) -> bool {
        self.positions == Positions::Rope
    }

    /// Returns the number of last blocks whose tokens the graph outputs as `layers_*`.
    pub fn layers(&self) -> usize {
        self.depth.min(Self::MAX_LAYERS)
    }

    /// Describes what can change a feature but does not show in the weights, for the fingerprint.
    /// Values are named only where they differ from those of DINOv2, so that its fingerprints do
    /// not change.
    pub(crate) fn fingerprint_text(&self) -> String {
        let mut text = format!("heads {} ffn {:?}", self.heads, self.ffn);
        if !is_default(&self.normalization) {
            let Normalization { mean, std } = self.normalization;
            text += &format!(" mean {mean:?} std {std:?}");
        }
        if !is_dinov2_eps(&self.norm_eps) {
            text += &format!(" norm_eps {:?}", self.norm_eps);
        }
        if self.has_rope() {
            text += " rope";
        }
        if let Some(interpolation) = self.interpolation {
            text += &format!(" interpolation {interpolation}");
        }
        text
    }

    /// Checks the values that later code depends on; the error says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.heads == 0 || self.dim == 0 || !self.dim.is_multiple_of(self.heads) {
            return Err("`dim` must be a positive multiple of `heads`".to_owned());
        }
        if self.depth == 0 || self.ffn_hidden == 0 {
            return Err("`depth` and `ffn_hidden` must be positive".to_owned());
        }
        match self.positions {
            Positions::Learned if self.native_grid == 0 => {
                return Err("`native_grid` must be positive, for a table of positions".to_owned());
            }
            Positions::Rope if self.native_grid != 0 || self.interpolation.is_some() => {
                return Err(
                    "`native_grid` and `interpolation` are for a table of positions; leave them \
                     out with `positions = \"rope\"`"
                        .to_owned(),
                );
            }
            Positions::Rope if !self.head_dim().is_multiple_of(4) => {
                return Err(
                    "with `positions = \"rope\"`, `dim / heads` must be a multiple of 4".to_owned(),
                );
            }
            Positions::Learned | Positions::Rope => {}
        }
        let sizes = [
            self.dim,
            self.depth,
            self.registers,
            self.ffn_hidden,
            self.native_grid,
            self.patch.pixels(),
        ];
        if sizes.iter().any(|&size| size > MAX_DIMENSION) {
            return Err(format!("no size may be above {MAX_DIMENSION}"));
        }
        if !self.dim.is_multiple_of(2) || !self.ffn_hidden.is_multiple_of(2) {
            return Err("`dim` and `ffn_hidden` must be even".to_owned());
        }
        let Normalization { mean, std } = self.normalization;
        let std_is_usable = std.iter().all(|std| std.is_finite() && *std > 0.0);
        if !std_is_usable || mean.iter().any(|mean| !mean.is_finite()) {
            return Err(
                "`normalization` must have finite means and positive deviations".to_owned(),
            );
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return Err("`norm_eps` must be a positive number".to_owned());
        }
        Ok(())
    }
}

fn dinov2_patch() -> PatchSize {
    Architecture::DINOV2_SMALL.patch
}

fn is_dinov2_patch(patch: &PatchSize) -> bool {
    *patch == dinov2_patch()
}

fn dinov2_eps() -> f32 {
    Architecture::DINOV2_SMALL.norm_eps
}

#[allow(clippy::float_cmp, reason = "the default is stored, not computed")]
fn is_dinov2_eps(eps: &f32) -> bool {
    *eps == dinov2_eps()
}

fn yes() -> bool {
    true
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_yes(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "dim = 384\ndepth = 12\nheads = 6\nregisters = 0\nffn = \"mlp\"\n\
                         ffn_hidden = 1536\nnative_grid = 37\n";

    fn parse(extra: &str) -> Result<Architecture, String> {
        let architecture: Architecture =
            toml::from_str(&format!("{SMALL}{extra}")).map_err(|error| error.to_string())?;
        architecture.check().map(|()| architecture)
    }

    #[test]
    fn values_of_dinov2_are_not_stored() {
        let architecture = parse("").expect("a valid architecture");
        assert_eq!(architecture, Architecture::DINOV2_SMALL);
        let json = serde_json::to_string(&architecture).expect("plain data");
        let expected = concat!(
            r#"{"dim":384,"depth":12,"heads":6,"registers":0,"#,
            r#""ffn":"mlp","ffn_hidden":1536,"native_grid":37}"#
        );
        assert_eq!(json, expected);
        assert_eq!(architecture.fingerprint_text(), "heads 6 ffn Mlp");
    }

    #[test]
    fn other_values_are_stored_and_part_of_the_fingerprint() {
        let other = parse(
            "patch = 16\nnorm_eps = 1e-5\nlayer_scale = false\nqkv_bias = false\n\
             normalization = { mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }\n",
        )
        .expect("a valid architecture");
        assert_eq!(other.patch.pixels(), 16);
        let json = serde_json::to_string(&other).expect("plain data");
        let read: Architecture = serde_json::from_str(&json).expect("the same");
        assert_eq!(read, other);
        assert_eq!(
            other.fingerprint_text(),
            "heads 6 ffn Mlp mean [0.5, 0.5, 0.5] std [0.5, 0.5, 0.5] norm_eps 1e-5"
        );
    }

    #[test]
    fn impossible_values_are_rejected() {
        for (extra, text) in [
            ("patch = 0", "a patch must have at least 1 pixel"),
            ("patch = 100000", "no size may be above 65536"),
            ("norm_eps = 0.0", "`norm_eps` must be a positive number"),
            (
                "positions = \"fixed\"",
                "unknown variant `fixed`, expected `learned` or `rope`",
            ),
            (
                "positions = \"rope\"",
                "`native_grid` and `interpolation` are for a table of positions",
            ),
            (
                "normalization = { mean = [0, 0, 0], std = [1, 1, 0] }",
                "positive deviations",
            ),
        ] {
            let error = parse(extra).expect_err(extra);
            assert!(error.contains(text), "{extra}: {error}");
        }
    }
}
