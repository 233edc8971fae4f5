//! Everything about a run that can be chosen. Written to `RUN/config.toml`, so that a run says what
//! it was.

use anyhow::{Context, bail};
use dinoserve::{
    model::{Ffn, ModelSpec},
    vision::PATCH,
};
use serde::{Deserialize, Serialize};

pub use crate::{
    data::CropConfig,
    method::{Centring, mask::MaskConfig},
    model::HeadConfig,
};

/// All of it. What a file leaves out has its default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The backbone.
    pub model: ModelConfig,
    /// The projection heads.
    pub head: HeadConfig,
    /// The views of an image.
    pub crops: CropConfig,
    /// What is minimized.
    pub loss: LossConfig,
    /// How.
    pub optimiser: OptimiserConfig,
    /// What is written when.
    pub run: RunConfig,
}

/// Sizes that `--arch` names; those of DINO's and DINOv2's models but for `micro`, which learns
/// something on a laptop.
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

/// The backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads of each.
    pub heads: usize,
    /// Register tokens.
    pub registers: usize,
    /// Kind of feed-forward network.
    pub ffn: Ffn,
    /// Width of its hidden layer; 0 for four times `dim` (for SwiGLU two thirds of that, in
    /// eights).
    pub ffn_hidden: usize,
    /// Side in patches of the position table; 0 for that of a global crop.
    pub native_grid: usize,
    /// Share of images for which the last block's branches are left out; it rises linearly from 0
    /// at the first block.
    pub drop_path: f64,
    /// First value of LayerScale. DINOv2 begins with 1e-5, which wants long runs.
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
        model.take(Arch::Small);
        model
    }
}

impl ModelConfig {
    /// Takes the sizes of a known architecture.
    pub fn take(&mut self, arch: Arch) {
        (self.dim, self.depth, self.heads) = match arch {
            Arch::Micro => (128, 6, 4),
            Arch::Tiny => (192, 12, 3),
            Arch::Small => (384, 12, 6),
            Arch::Base => (768, 12, 12),
            Arch::Large => (1024, 24, 16),
        };
    }

    /// Takes the sizes of a model of the catalog.
    pub fn take_spec(&mut self, spec: &ModelSpec) {
        (self.dim, self.depth, self.heads) = (spec.dim, spec.depth, spec.heads);
        (self.registers, self.ffn, self.ffn_hidden) = (spec.registers, spec.ffn, spec.ffn_hidden);
        self.native_grid = spec.native_grid;
    }
}

/// What is minimized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// By which the student's logits are divided.
    pub student_temperature: f64,
    /// By which the teacher's are: at first, and after the warm-up.
    pub teacher_temperature: [f64; 2],
    /// Epochs until the second.
    pub teacher_warmup_epochs: f64,
    /// How the teacher's logits are centered.
    pub centring: Centring,
    /// How much of the center remains after a batch.
    pub center_momentum: f64,
    /// Weight of iBOT's masked-patch loss; 0 leaves it and its head out. DINOv2 has 1.
    pub patch_weight: f64,
    /// Which patches it hides.
    pub mask: MaskConfig,
    /// Weight of KoLeo; 0 leaves it out. DINOv2 has 0.1.
    pub koleo_weight: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            student_temperature: 0.1,
            teacher_temperature: [0.04, 0.04],
            teacher_warmup_epochs: 0.0,
            centring: Centring::Mean,
            center_momentum: 0.9,
            patch_weight: 0.0,
            mask: MaskConfig::default(),
            koleo_weight: 0.0,
        }
    }
}

/// How it is minimized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserConfig {
    /// How often all images are seen.
    pub epochs: usize,
    /// Images that go through the networks together.
    pub batch: usize,
    /// Batches whose gradients make up one step.
    pub accumulate: usize,
    /// Highest learning rate for 256 images a step; it is scaled by the images of a step.
    pub learning_rate: f64,
    /// Learning rate at the end.
    pub final_learning_rate: f64,
    /// Epochs until the highest.
    pub warmup_epochs: f64,
    /// Weight decay at the beginning and at the end, with a cosine between.
    pub weight_decay: [f64; 2],
    /// How much of the teacher remains at each step, at the beginning and at the end, with a cosine
    /// between.
    pub teacher_momentum: [f64; 2],
    /// Most length of a parameter's gradient.
    pub clip: f64,
    /// Epochs in which the prototypes are not changed.
    pub freeze_prototypes_epochs: f64,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            epochs: 100,
            batch: 64,
            accumulate: 1,
            learning_rate: 5e-4,
            final_learning_rate: 1e-6,
            warmup_epochs: 10.0,
            weight_decay: [0.04, 0.4],
            teacher_momentum: [0.996, 1.0],
            clip: 3.0,
            freeze_prototypes_epochs: 1.0,
        }
    }
}

impl OptimiserConfig {
    /// Images whose gradients make up one step.
    pub fn images_per_step(&self) -> usize {
        self.batch * self.accumulate
    }
}

/// What is written when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Decides all that is left to chance.
    pub seed: u64,
    /// Parts of a batch that are computed at the same time, with KoLeo of at least 16 images each;
    /// 0 for two for each core, or one on a GPU. What drop path leaves out and what is near for
    /// KoLeo depends on it, so a run keeps it.
    pub shards: usize,
    /// Steps between two lines of metrics.
    pub log_steps: usize,
    /// Epochs between two checkpoints.
    pub checkpoint_epochs: usize,
    /// Epochs between two measurements of the k-NN accuracy.
    pub knn_epochs: usize,
    /// Neighbors that vote.
    pub knn_neighbours: usize,
    /// Epochs between two sheets of attention and PCA maps.
    pub picture_epochs: usize,
    /// Images on such a sheet.
    pub pictures: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            shards: 0,
            log_steps: 10,
            checkpoint_epochs: 1,
            knn_epochs: 5,
            knn_neighbours: 20,
            picture_epochs: 5,
            pictures: 6,
        }
    }
}

impl Config {
    /// Reads `text`, and what `settings` (`section.key=value`) overrule of it.
    ///
    /// # Errors
    /// If a key is unknown or a value of the wrong type; the message names it.
    pub fn parse(text: &str, settings: &[String]) -> anyhow::Result<Self> {
        let mut table: toml::Table = text.parse().context("the configuration is no TOML")?;
        for setting in settings {
            let (key, value) = setting.split_once('=').with_context(|| {
                format!(
                    "`--set {setting}` has no `=`; it should be as in `--set optimiser.epochs=20`"
                )
            })?;
            // Words need no quotes.
            let value = format!("value = {value}")
                .parse::<toml::Table>()
                .ok()
                .and_then(|mut table| table.remove("value"));
            let value =
                value.unwrap_or_else(|| toml::Value::String(setting[key.len() + 1..].to_owned()));
            put(&mut table, key.trim(), value).with_context(|| format!("--set {setting}"))?;
        }
        table.try_into().context("the configuration is wrong")
    }

    /// As TOML, with everything that has a default.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is plain data")
    }

    /// Checks what the rest counts on.
    ///
    /// # Errors
    /// That names the key and what would be right.
    pub fn check(&self) -> anyhow::Result<()> {
        let Self {
            model,
            head,
            crops,
            loss,
            optimiser,
            run,
        } = self;
        crops.check()?;
        self.spec("checked")
            .map_err(anyhow::Error::from)
            .context("[model]")?;
        if [head.hidden, head.bottleneck, head.prototypes].contains(&0) {
            bail!("head.hidden, head.bottleneck and head.prototypes must be positive");
        }
        let positive = [
            ("optimiser.epochs", optimiser.epochs),
            ("optimiser.batch", optimiser.batch),
            ("optimiser.accumulate", optimiser.accumulate),
            ("run.log_steps", run.log_steps),
            ("run.checkpoint_epochs", run.checkpoint_epochs),
            ("run.knn_epochs", run.knn_epochs),
            ("run.knn_neighbours", run.knn_neighbours),
            ("run.picture_epochs", run.picture_epochs),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            bail!("{key} is 0; it must be at least 1");
        }
        if optimiser.batch.checked_mul(optimiser.accumulate).is_none() {
            bail!("optimiser.batch times optimiser.accumulate is too large");
        }
        if optimiser.warmup_epochs >= optimiser.epochs as f64 {
            bail!(
                "optimiser.warmup_epochs is {}, and optimiser.epochs {}; the warm-up must be over before the end, as with \
                 `--set optimiser.warmup_epochs={}`",
                optimiser.warmup_epochs,
                optimiser.epochs,
                optimiser.epochs as f64 / 10.0
            );
        }
        if !model.layer_scale.is_finite() {
            bail!(
                "model.layer_scale is {}; it must be a number",
                model.layer_scale
            );
        }
        let shares = [
            ("loss.center_momentum", loss.center_momentum),
            ("loss.mask.images", loss.mask.images),
            ("loss.mask.ratio", loss.mask.ratio[0]),
            ("loss.mask.ratio", loss.mask.ratio[1]),
            ("optimiser.teacher_momentum", optimiser.teacher_momentum[0]),
            ("optimiser.teacher_momentum", optimiser.teacher_momentum[1]),
        ];
        if let Some((key, value)) = shares
            .iter()
            .find(|(_, value)| !(0.0..=1.0).contains(value))
        {
            bail!("{key} is {value}; it must be 0 to 1");
        }
        if !(0.0..1.0).contains(&model.drop_path) {
            bail!(
                "model.drop_path is {}; it must be 0 to 1, and below 1",
                model.drop_path
            );
        }
        let above_zero = [
            ("loss.student_temperature", loss.student_temperature),
            ("loss.teacher_temperature", loss.teacher_temperature[0]),
            ("loss.teacher_temperature", loss.teacher_temperature[1]),
            ("optimiser.learning_rate", optimiser.learning_rate),
            ("optimiser.clip", optimiser.clip),
        ];
        if let Some((key, value)) = above_zero
            .iter()
            .find(|(_, value)| !(*value > 0.0 && value.is_finite()))
        {
            bail!("{key} is {value}; it must be above 0");
        }
        let not_negative = [
            ("loss.patch_weight", loss.patch_weight),
            ("loss.koleo_weight", loss.koleo_weight),
            ("loss.teacher_warmup_epochs", loss.teacher_warmup_epochs),
            (
                "optimiser.final_learning_rate",
                optimiser.final_learning_rate,
            ),
            ("optimiser.warmup_epochs", optimiser.warmup_epochs),
            (
                "optimiser.freeze_prototypes_epochs",
                optimiser.freeze_prototypes_epochs,
            ),
            ("optimiser.weight_decay", optimiser.weight_decay[0]),
            ("optimiser.weight_decay", optimiser.weight_decay[1]),
        ];
        if let Some((key, value)) = not_negative
            .iter()
            .find(|(_, value)| !(*value >= 0.0 && value.is_finite()))
        {
            bail!("{key} is {value}; it must be 0 or above");
        }
        if loss.koleo_weight > 0.0 && optimiser.batch < 2 {
            bail!("loss.koleo_weight needs a neighbor: optimiser.batch must be at least 2");
        }
        Ok(())
    }

    /// The description that `dinoserve` needs to convert and serve what was trained.
    ///
    /// # Errors
    /// [`dinoserve::error::Kind::Artifact`] that names the size that is wrong.
    pub fn spec(&self, name: &str) -> dinoserve::error::Result<ModelSpec> {
        let model = &self.model;
        let hidden = match (model.ffn_hidden, model.ffn) {
            (0, Ffn::Mlp) => 4 * model.dim,
            (0, Ffn::Swiglu) => (4 * model.dim * 2 / 3).div_ceil(8) * 8,
            (hidden, _) => hidden,
        };
        let side = self.crops.global_size;
        let spec = ModelSpec {
            name: name.to_owned(),
            summary: format!(
                "trained by dinoserve-train, {} wide, {} blocks",
                model.dim, model.depth
            ),
            licence: "none given".to_owned(),
            notice: None,
            dim: model.dim,
            depth: model.depth,
            heads: model.heads,
            registers: model.registers,
            ffn: model.ffn,
            ffn_hidden: hidden,
            native_grid: if model.native_grid == 0 {
                side / PATCH
            } else {
                model.native_grid
            },
            embed_size: side,
            // About the ratio that DINOv2 has between what it was trained on and its maps.
            map_size: 2 * side,
            sources: Vec::new(),
        };
        // Reads it again, which checks it.
        ModelSpec::parse(&spec_toml(&spec), "the configuration")
    }
}

/// A description as a file of `models/`.
pub fn spec_toml(spec: &ModelSpec) -> String {
    toml::to_string_pretty(spec).expect("a description is plain data")
}

fn put(table: &mut toml::Table, key: &str, value: toml::Value) -> anyhow::Result<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = inner
                .as_table_mut()
                .with_context(|| format!("{section} is no section"))?;
            put(inner, rest, value)
        }
    }
}
