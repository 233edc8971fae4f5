//! Flags that several commands share.

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::Device;
use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};
use strum::VariantNames;

use crate::{config::Config, method::Method, model::Arch, run::open_device};

/// Flag for the device.
#[derive(Debug, Clone, Args)]
pub(super) struct DeviceFlag {
    /// Device: `cpu`, or `cuda` if the program was built with `--features cuda`
    #[arg(long, env = "DINOSERVE_TRAIN_DEVICE", default_value = "cpu")]
    device: String,
}

/// Flags that make up a configuration.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigFlags {
    /// Configuration file; missing keys have their defaults. A resumed run uses its config.toml if
    /// this is not given
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// What is learned from: `dino` needs no labels, `supervised` takes the names of the subfolders
    /// as labels [default: that of the configuration, else `dino`]
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(Method::VARIANTS)
            .try_map(|name| name.parse::<Method>())
    )]
    pub(super) method: Option<Method>,

    /// Sizes of the backbone
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(Arch::VARIANTS)
            .try_map(|name| name.parse::<Arch>())
    )]
    pub(super) arch: Option<Arch>,

    /// Key of the configuration, such as `optimiser.learning_rate=1e-3`; may be given several
    /// times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(super) set: Vec<String>,
}

impl DeviceFlag {
    pub(super) fn open(&self) -> anyhow::Result<Device> {
        open_device(&self.device)
    }
}

impl ConfigFlags {
    /// Reads the configuration file, or else `default`, and applies `--method` and `--arch`
    /// but not `--set`.
    pub(super) fn read(&self, default: Option<&Path>) -> anyhow::Result<Config> {
        let mut config = match self.config.as_deref().or(default) {
            Some(file) => read_config(file)?,
            None => Config::default(),
        };
        if let Some(method) = self.method {
            config.method = method;
        }
        if let Some(arch) = self.arch {
            config.model.set_arch(arch);
        }
        Ok(config)
    }
}

/// Reads a configuration file.
pub(super) fn read_config(file: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the configuration {}", file.display()))?;
    Config::parse(&text, &[])
}
