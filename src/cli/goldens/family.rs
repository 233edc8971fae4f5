//! `family.json`: the description of a model whose references are in the same folder.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::{
    model::{
        Architecture, Family, Ffn, Interpolation, ModelSpec, Normalization, Positions, RopePeriods,
    },
    vision::PatchSize,
};

/// Default `embed_size` and `map_size` of the description; they do not matter here.
const PATCHES: usize = 14;

/// The file's fields that matter for features.
#[derive(Debug, Deserialize)]
struct FamilyFile {
    family: String,
    dim: usize,
    depth: usize,
    heads: usize,
    patch: PatchSize,
    /// Side of the native image, in pixels; absent without a position table.
    native: Option<usize>,
    eps: f32,
    /// Base of the periods of rotations.
    rope_base: Option<f32>,
    /// `rope`, or how a table is interpolated, in words.
    position: String,
    ffn: Ffn,
    ffn_hidden: Option<usize>,
    #[serde(default)]
    registers: usize,
    layer_scale: bool,
    #[serde(default = "yes")]
    qkv_bias: bool,
    mean: [f64; 3],
    std: [f64; 3],
}

fn yes() -> bool {
    true
}

/// Reads the description of the model from `family.json` in `folder`.
pub(super) fn read(folder: &Path) -> anyhow::Result<ModelSpec> {
    let path = folder.join("family.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: FamilyFile = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a description of a family", path.display()))?;
    file.spec().with_context(|| path.display().to_string())
}

impl FamilyFile {
    fn spec(&self) -> anyhow::Result<ModelSpec> {
        let family = match self.family.as_str() {
            "dino1" => Family::Dino,
            other => match other.parse() {
                Ok(family) => family,
                Err(_) => bail!("the family {other} is unknown; use dino1, dinov2, dinov3 or vit"),
            },
        };
        let (positions, interpolation) = match self.position.as_str() {
            "rope" => (Positions::Rope, None),
            words if words.contains("0.1") => (Positions::Learned, Some(Interpolation::Offset)),
            words if words.contains("antialias") && !words.contains("no antialias") => {
                (Positions::Learned, Some(Interpolation::Antialiased))
            }
            other => bail!(
                "the position rule {other:?} is unknown; use one with `rope`, `antialias` or \
                 `n+0.1`"
            ),
        };
        if let Some(base) = self.rope_base {
            ensure!(
                base == RopePeriods::BASE,
                "`rope_base` is {base}, but periods are computed with {}",
                RopePeriods::BASE
            );
        }
        let patch = self.patch.pixels();
        let native_grid = match (positions, self.native) {
            (Positions::Rope, _) => 0,
            (Positions::Learned, Some(native)) => {
                ensure!(native % patch == 0, "`native` is no multiple of `patch`");
                native / patch
            }
            (Positions::Learned, None) => bail!("`native` is missing"),
        };
        let ffn_hidden = match (self.ffn_hidden, self.ffn) {
            (Some(hidden), _) => hidden,
            (None, Ffn::Mlp) => self.dim.saturating_mul(4),
            (None, Ffn::Swiglu) => bail!("`ffn_hidden` is missing"),
        };
        let spec = ModelSpec {
            name: "references".to_owned(),
            summary: "a model with references".to_owned(),
            family,
            licence: "not given".to_owned(),
            notice: None,
            architecture: Architecture {
                dim: self.dim,
                depth: self.depth,
                heads: self.heads,
                registers: self.registers,
                ffn: self.ffn,
                ffn_hidden,
                native_grid,
                patch: self.patch,
                normalization: Normalization {
                    mean: self.mean,
                    std: self.std,
                },
                norm_eps: self.eps,
                positions,
                interpolation,
                layer_scale: self.layer_scale,
                qkv_bias: self.qkv_bias,
            },
            embed_size: patch.saturating_mul(PATCHES),
            map_size: patch.saturating_mul(PATCHES),
            sources: Vec::new(),
        };
        spec.check()?;
        Ok(spec)
    }
}
