//! The configuration of a run, composed of the sections that its parts define. `RUN/config.toml`
//! records it.

use anyhow::{Context, bail};
use dinoserve::model::ModelSpec;
use serde::{Deserialize, Serialize};

use crate::{
    data::CropConfig,
    method::{LossConfig, Method, OptimizerConfig},
    model::{HeadConfig, ModelConfig},
    run::RunConfig,
};

/// All sections. Missing sections and keys have their defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is learned from. The sections `head` and `loss` are those of `dino`; `supervised` does
    /// not use them, so that both methods can share a file.
    pub method: Method,
    /// The backbone.
    pub model: ModelConfig,
    /// The projection heads.
    pub head: HeadConfig,
    /// The views of an image.
    pub crops: CropConfig,
    /// The loss.
    pub loss: LossConfig,
    /// The optimizer and its schedules.
    #[serde(rename = "optimiser")]
    pub optimizer: OptimizerConfig,
    /// The run: seed, shards, and what is written when.
    pub run: RunConfig,
}

impl Config {
    /// Parses `text`, and overrides it by `settings` of the form `section.key=value`.
    ///
    /// # Errors
    /// If a key is unknown or a value has the wrong type; the message names it.
    pub fn parse(text: &str, settings: &[String]) -> anyhow::Result<Self> {
        let mut table: toml::Table = text.parse().context("the configuration is not TOML")?;
        for setting in settings {
            let (key, text) = setting.split_once('=').with_context(|| {
                format!("`--set {setting}` has no `=`; the form is `--set optimiser.epochs=20`")
            })?;
            // A value that is not TOML is a string without quotes.
            let value = format!("value = {text}")
                .parse::<toml::Table>()
                .ok()
                .and_then(|mut table| table.remove("value"))
                .unwrap_or_else(|| toml::Value::String(text.to_owned()));
            set_key(&mut table, key.trim(), value).with_context(|| format!("--set {setting}"))?;
        }
        table.try_into().context("the configuration is wrong")
    }

    /// Returns the configuration as TOML, defaults included.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is plain data")
    }

    /// Checks the ranges of all values. An error names the key and the range.
    pub fn check(&self) -> anyhow::Result<()> {
        self.crops.check()?;
        self.spec("checked")
            .map_err(anyhow::Error::from)
            .context("[model]")?;
        self.head.check()?;
        self.optimizer.check()?;
        self.run.check()?;
        self.model.check()?;
        self.loss.check()?;
        let uses_koleo = self.method == Method::Dino && self.loss.koleo_weight > 0.0;
        if uses_koleo && self.optimizer.batch < 2 {
            bail!("loss.koleo_weight needs a neighbor: optimiser.batch must be at least 2");
        }
        Ok(())
    }

    /// Builds the description that `dinoserve` needs to convert and serve the trained model.
    pub fn spec(&self, name: &str) -> dinoserve::error::Result<ModelSpec> {
        let mut spec = self.model.spec(name, self.crops.global_size)?;
        if self.method == Method::Supervised {
            spec.summary.push_str(", with labels");
        }
        Ok(spec)
    }

    /// Returns whether the masked-patch loss is used.
    pub(crate) fn masks_patches(&self) -> bool {
        self.method == Method::Dino && self.loss.patch_weight > 0.0
    }
}

/// Sets a dotted key of a table, and creates its sections.
fn set_key(table: &mut toml::Table, key: &str, value: toml::Value) -> anyhow::Result<()> {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    let inner = table
        .entry(section)
        .or_insert_with(|| toml::Value::Table(toml::Table::new()))
        .as_table_mut()
        .with_context(|| format!("{section} is not a section"))?;
    set_key(inner, rest, value)
}
