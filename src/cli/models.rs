//! `dinoserve models list|pull|convert|verify`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{
    common::{RuntimeFlags, StoreFlags},
    goldens,
    progress::{Progress, Unit},
};
use crate::{
    artifacts::{Manifest, ModelFile, ModelState, convert},
    model::PositionRule,
};

#[derive(Debug, Subcommand)]
pub(super) enum Models {
    /// List the known models and what of them is in the cache
    List(List),
    /// Download a model's weights and convert them
    Pull(Pull),
    /// Convert a weight file: safetensors (also sharded), a hub .pth, or an ONNX export
    Convert(Convert),
    /// Check that a converted model is as it was written
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    store: StoreFlags,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// Name of the model
    name: String,

    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, Args)]
pub(super) struct Convert {
    /// Name of the model whose architecture the weights have
    #[arg(required_unless_present = "spec")]
    name: Option<String>,

    #[command(flatten)]
    store: StoreFlags,

    /// Weight file: .safetensors, .safetensors.index.json, .pth, .pt, .bin or .onnx
    #[arg(long, value_name = "FILE")]
    from: PathBuf,

    /// Where the converted model goes [default: the cache folder]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// Description of a model that is not in the catalog (see models/*.toml)
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    spec: Option<PathBuf>,

    /// Write weights above this many bytes to a file of their own (a protobuf ends at 2 GiB)
    #[arg(long, value_name = "BYTES", default_value_t = 1_800_000_000)]
    external_above: u64,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Name of the model
    name: String,

    #[command(flatten)]
    store: StoreFlags,

    #[command(flatten)]
    runtime: RuntimeFlags,

    /// Folder of reference features: run each `X_input.png` and compare with `X.safetensors` (`cls`, `attention`)
    #[arg(long, value_name = "DIR")]
    goldens: Option<PathBuf>,
}

impl Models {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(command) => command.run(),
            Self::Pull(command) => command.run(),
            Self::Convert(command) => command.run(),
            Self::Verify(command) => command.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.store()?;
        let mut out = std::io::stdout().lock();
        let state = |spec| match store.state(spec) {
            ModelState::Converted => "converted",
            ModelState::Downloaded => "downloaded",
            ModelState::Absent => "-",
        };
        if self.json {
            let models: Vec<_> =
                store.catalog().iter().map(|spec| serde_json::json!({"model": spec, "state": state(spec)})).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&models)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{:<20} {:<11} SUMMARY", "NAME", "IN CACHE")?;
        for spec in store.catalog().iter() {
            writeln!(out, "{:<20} {:<11} {}", spec.name, state(spec), spec.summary)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Pull {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.store()?;
        let mut progress = Progress::new(Unit::BytesOrSteps);
        let pulled = store.pull(&self.name, &mut |step, done, total| progress.show(step, done, total));
        progress.finish();
        report(&pulled?, &store.converted_path(&self.name))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Convert {
    fn run(self) -> anyhow::Result<ExitCode> {
        let mut store = self.store.store()?;
        let name = match (self.spec, self.name) {
            (Some(path), _) => store.add_description(&path)?,
            (None, Some(name)) => name,
            (None, None) => anyhow::bail!("a model name or --spec is needed"),
        };
        let spec = store.catalog().get(&name)?;
        let to = self.to.unwrap_or_else(|| store.converted_path(&name));
        let mut progress = Progress::new(Unit::BytesOrSteps);
        let mut show = |step: &str, done, total| progress.show(step, done, total);
        let manifest = convert(spec, &self.from, None, &to, self.external_above, &mut show)
            .with_context(|| format!("converting {} as {name}", self.from.display()));
        progress.finish();
        report(&manifest?, &to)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.store()?;
        let mut progress = Progress::new(Unit::BytesOrSteps);
        let verified = store.verify(&self.name, &mut |step, done, total| progress.show(step, done, total));
        progress.finish();
        let verified = verified?;
        let mut out = std::io::stdout();
        writeln!(out, "{} is as it was written", verified.path.display())?;
        writeln!(out, "fingerprint {}", verified.manifest.fingerprint)?;
        writeln!(out, "made from {} (sha256 {})", verified.manifest.source, verified.manifest.source_sha256)?;
        match self.goldens {
            None => Ok(ExitCode::SUCCESS),
            Some(folder) => {
                let runtime = self.runtime.load(&self.store)?;
                let model = ModelFile::open(&verified.path, PositionRule::Hub)?;
                goldens::compare(&runtime, &model, &folder)
            }
        }
    }
}

fn report(manifest: &Manifest, path: &std::path::Path) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{} {} fingerprint {}", manifest.model, manifest.precision, manifest.fingerprint)?;
    writeln!(out, "{}", path.display())
}
