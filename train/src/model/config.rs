//! Section `model`: sizes of the backbone.

use anyhow::bail;
use dinoserve::model::{Architecture, Family, Ffn, ModelSpec};
use serde::{Deserialize, Serialize};

/// Sizes that `--arch` names. Those of DINO's and DINOv2's models, except for `micro`, which trains
/// on a laptop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Arch {
    /// 128 wide, 6 blocks: 1 M parameters.
    Micro,
    /// ViT-Ti: 192 wide, 12 blocks.
    Tiny,
    /// ViT-S: 384 wide, 12 blocks.
    Small,
    /// ViT-B: 768 wide, 12 blocks.
    Base,
    /// ViT-L: 1024 wide, 24 blocks.
    Large,
}

/// Section `model`: the backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads in a block.
    pub heads: usize,
    /// Number of register tokens.
    pub registers: usize,
    /// Kind of feed-forward network.
    pub ffn: Ffn,
    /// Width of its hidden layer. 0 means four times `dim`; for SwiGLU, two thirds of that, rounded
    /// up to a multiple of 8.
    pub ffn_hidden: usize,
    /// Side of the position table in patches; 0 for that of a global crop.
    pub native_grid: usize,
    /// Drop-path rate of the last block: the share of images for which its branches are left out.
    /// The rate rises linearly from 0 at the first block.
    pub drop_path: f64,
    /// Initial value of LayerScale. DINOv2 begins with 1e-5, which needs long runs.
    pub layer_scale: f32,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let mut model = Self {
            dim: 0,
            depth: 0,
            heads: 0,
            registers: 0,
            ffn: Ffn::Mlp,
            ffn_hidden: 0,
            native_grid: 0,
            drop_path: 0.1,
            layer_scale: 0.1,
        };
        model.set_arch(Arch::Small);
        model
    }
}

impl ModelConfig {
    /// Sets the sizes of a named architecture.
    pub fn set_arch(&mut self, arch: Arch) {
        (self.dim, self.depth, self.heads) = match arch {
            Arch::Micro => (128, 6, 4),
            Arch::Tiny => (192, 12, 3),
            Arch::Small => (384, 12, 6),
            Arch::Base => (768, 12, 12),
            Arch::Large => (1024, 24, 16),
        };
    }

    /// Sets the sizes of a model of the catalog. Fails if it differs from DINOv2 in more than its
    /// sizes.
    pub fn set_spec(&mut self, spec: &ModelSpec) -> anyhow::Result<()> {
        let Architecture {
            dim,
            depth,
            heads,
            registers,
            ffn,
            ffn_hidden,
            native_grid,
            ..
        } = spec.architecture;
        let model = Self {
            dim,
            depth,
            heads,
            registers,
            ffn,
            ffn_hidden,
            native_grid,
            ..self.clone()
        };
        if model.architecture(spec.embed_size) != spec.architecture {
            bail!(
                "the model {} cannot be trained: its patch size, normalization, norm_eps, \
                 layer_scale or qkv_bias is not that of DINOv2; choose another model",
                spec.name
            );
        }
        *self = model;
        Ok(())
    }

    /// Returns the architecture of a backbone that is trained on global crops of `global_size`
    /// pixels. It differs from DINOv2 only in its sizes.
    fn architecture(&self, global_size: usize) -> Architecture {
        let dinov2 = Architecture::DINOV2_SMALL;
        Architecture {
            dim: self.dim,
            depth: self.depth,
            heads: self.heads,
            registers: self.registers,
            ffn: self.ffn,
            ffn_hidden: match (self.ffn_hidden, self.ffn) {
                (0, Ffn::Mlp) => 4 * self.dim,
                (0, Ffn::Swiglu) => (4 * self.dim * 2 / 3).div_ceil(8) * 8,
                (hidden, _) => hidden,
            },
            native_grid: match self.native_grid {
                0 => global_size / dinov2.patch.pixels(),
                side => side,
            },
            ..dinov2
        }
    }

    /// Builds the model description of a backbone that is trained on global crops of `global_size`
    /// pixels.
    ///
    /// # Errors
    /// [`dinoserve::error::Kind::Artifact`] if a size is wrong; the message names it.
    pub fn spec(&self, name: &str, global_size: usize) -> dinoserve::error::Result<ModelSpec> {
        let spec = ModelSpec {
            name: name.to_owned(),
            summary: format!(
                "trained by dinoserve-train, {} wide, {} blocks",
                self.dim, self.depth
            ),
            licence: "none given".to_owned(),
            family: Family::Dinov2,
            notice: None,
            architecture: self.architecture(global_size),
            embed_size: global_size,
            // About DINOv2's ratio between the size of its training crops and that of its maps.
            map_size: 2 * global_size,
            sources: Vec::new(),
        };
        // Parsing checks the description.
        ModelSpec::parse(&spec_toml(&spec), "the configuration")
    }

    /// Checks what [`ModelConfig::spec`] does not.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !self.layer_scale.is_finite() {
            bail!(
                "model.layer_scale is {}; it must be finite",
                self.layer_scale
            );
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            bail!(
                "model.drop_path is {}; it must be at least 0 and below 1",
                self.drop_path
            );
        }
        Ok(())
    }
}

/// Writes a description in the format of the files in `models/`.
pub(crate) fn spec_toml(spec: &ModelSpec) -> String {
    toml::to_string_pretty(spec).expect("a description is plain data")
}
