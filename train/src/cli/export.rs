//! `dinoserve-train export RUN`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use burn::tensor::Device;
use clap::Args;

use super::{DeviceFlag, run::read};
use crate::{
    config::Config,
    run::{RunFiles, export, say, teacher_of},
};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Folder of the run
    run: PathBuf,

    /// Name that the model is served under [default: the name of the folder]
    #[arg(long)]
    name: Option<String>,

    #[command(flatten)]
    device: DeviceFlag,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let files = RunFiles::new(&self.run);
        if !files.checkpoint().exists() {
            bail!(
                "{} holds no checkpoint; is it the folder of a run?",
                self.run.display()
            );
        }
        export_run(
            &files,
            self.name,
            &crate::run::device_of(&self.device.device)?,
        )
    }
}

/// Exports the teacher of a run, and says how it is served.
pub(super) fn export_run(
    files: &RunFiles,
    name: Option<String>,
    device: &Device,
) -> anyhow::Result<()> {
    let config = Config::parse(&read(Some(&files.config()))?, &[])?;
    let name = match name {
        Some(name) => name,
        None => name_of(files)?,
    };
    let spec = config.spec(&name)?;
    export(
        &teacher_of(&files.checkpoint(), &config, device)?,
        &spec,
        &files.export(),
    )?;
    let folder = files.export();
    let folder = folder.display();
    say(format_args!(
        "The teacher is in {folder}. To serve it:\n  \
         mkdir -p ~/.cache/dinoserve/catalog && cp {folder}/{name}.toml ~/.cache/dinoserve/catalog/\n  \
         dinoserve models convert {name} --from {folder}/model.safetensors\n  \
         dinoserve serve --model {name}"
    ));
    Ok(())
}

/// The folder's name with what a model's name may not hold left out.
fn name_of(files: &RunFiles) -> anyhow::Result<String> {
    let folder = files
        .root()
        .canonicalize()
        .context("the folder of the run")?;
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    Ok(if name.trim_matches(['.', '-']).is_empty() {
        "trained".to_owned()
    } else {
        name.trim_start_matches('.').to_owned()
    })
}
