//! `dinoserve models list|pull|convert|verify`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};
use strum::VariantNames;

use super::{
    common::{PrecisionFlag, RuntimeFlags, StoreFlags},
    goldens,
    progress::{Progress, Unit},
};
use crate::{
    artifacts::{Manifest, ModelFile, ModelState, convert},
    model::PositionRule,
    onnx::Precision,
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

    #[command(flatten)]
    precision: PrecisionFlag,
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

    #[command(flatten)]
    precision: PrecisionFlag,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Name of the model
    name: String,

    #[command(flatten)]
    store: StoreFlags,

    #[command(flatten)]
    runtime: RuntimeFlags,

    #[command(flatten)]
    precision: PrecisionFlag,

    /// Folder of reference features: run each `X_input.png` and compare with `X.safetensors`
    /// (`cls`, `attention`)
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    goldens: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
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
        let state = |spec| {
            let state = |precision| store.state(spec, precision);
            let converted = Precision::VARIANTS
                .iter()
                .filter_map(|name| name.parse().ok());
            let converted =
                converted.filter(|&precision| state(precision) == ModelState::Converted);
            let converted: Vec<String> = converted
                .map(|precision: Precision| precision.to_string())
                .collect();
            match state(Precision::Fp32) {
                _ if !converted.is_empty() => converted.join(", "),
                ModelState::Downloaded => "downloaded".to_owned(),
                _ => "-".to_owned(),
            }
        };
        if self.json {
            let models: Vec<_> = store
                .catalog()
                .iter()
                .map(|spec| serde_json::json!({"model": spec, "state": state(spec)}))
                .collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&models)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{:<20} {:<16} SUMMARY", "NAME", "IN CACHE")?;
        for spec in store.catalog().iter() {
            writeln!(
                out,
                "{:<20} {:<16} {}",
                spec.name,
                state(spec),
                spec.summary
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Pull {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.store()?;
        let precision = self.precision.get();
        let mut progress = Progress::new(Unit::BytesOrSteps);
        let pulled = store.pull(&self.name, precision, &mut |step, done, total| {
            progress.show(step, done, total);
        });
        progress.finish();
        report(&pulled?, &store.converted_path(&self.name, precision))?;
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
        let precision = self.precision.get();
        let to = self
            .to
            .unwrap_or_else(|| store.converted_path(&name, precision));
        let mut progress = Progress::new(Unit::BytesOrSteps);
        let mut show = |step: &str, done, total| progress.show(step, done, total);
        let manifest = convert(spec, &self.from, None, precision, &to, &mut show)
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
        let precision = self.precision.get();
        let verified = store.verify(&self.name, precision, &mut |step, done, total| {
            progress.show(step, done, total);
        });
        progress.finish();
        let verified = verified?;
        let mut out = std::io::stdout();
        if self.json {
            let report = serde_json::json!({"path": verified.path, "manifest": verified.manifest});
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{} is as it was written", verified.path.display())?;
        writeln!(out, "fingerprint {}", verified.manifest.fingerprint)?;
        writeln!(
            out,
            "made from {} (sha256 {})",
            verified.manifest.source, verified.manifest.source_sha256
        )?;
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
    writeln!(
        out,
        "{} {} fingerprint {}",
        manifest.model, manifest.precision, manifest.fingerprint
    )?;
    writeln!(out, "{}", path.display())
}
