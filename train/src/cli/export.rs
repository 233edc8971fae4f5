//! `dinoserve-train export RUN`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use burn::tensor::Device;
use clap::Args;

use super::flags::{DeviceFlag, read_config};
use crate::run::{RunFiles, export, log_line, read_teacher};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Folder of the run
    run: PathBuf,

    /// Name of the served model [default: the name of the folder]
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
                "{} has no checkpoint; give the folder of a run",
                self.run.display()
            );
        }
        export_run(&files, self.name, &self.device.open()?)
    }
}

/// Exports the teacher of a run, and shows the commands that serve it.
pub(super) fn export_run(
    files: &RunFiles,
    name: Option<String>,
    device: &Device,
) -> anyhow::Result<()> {
    let config = read_config(&files.config())?;
    let name = match name {
        Some(name) => name,
        None => model_name(files)?,
    };
    let spec = config.spec(&name)?;
    let teacher = read_teacher(&files.checkpoint(), &config, device)?;
    let folder = files.export();
    export(&teacher, &spec, &folder)?;
    let folder = folder.display();
    log_line(format_args!(
        "The teacher is in {folder}. To serve it:\n  \
         mkdir -p ~/.cache/dinoserve/catalog && \
         cp {folder}/{name}.toml ~/.cache/dinoserve/catalog/\n  \
         dinoserve models convert {name} --from {folder}/model.safetensors\n  \
         dinoserve serve --model {name}"
    ));
    Ok(())
}

/// Returns the name of the run's folder, with `-` for characters that a model name may not have.
fn model_name(files: &RunFiles) -> anyhow::Result<String> {
    let folder = files
        .root()
        .canonicalize()
        .context("the folder of the run")?;
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .replace(
            |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c),
            "-",
        );
    Ok(if name.trim_matches(['.', '-']).is_empty() {
        "trained".to_owned()
    } else {
        name.trim_start_matches('.').to_owned()
    })
}
