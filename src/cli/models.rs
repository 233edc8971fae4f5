//! `dinoserve models list|pull|convert|verify`.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;
use strum::VariantNames;

use super::{
    flags::{StoreFlags, TargetFlags, log_notice},
    goldens,
    output::print_json,
    progress::with_progress,
};
use crate::{
    artifacts::{
        Manifest, ModelFile, ModelState, ModelStore, Progress, Pulled, WeightFile, convert,
    },
    model::{KNOWN_IMAGE, ModelSpec, PositionRule},
    onnx::Precision,
};

#[derive(Debug, Subcommand)]
pub(super) enum Models {
    /// List the known models and their state in the cache
    List(List),
    /// Download a model's weights and convert them
    Pull(Pull),
    /// Convert a weight file: safetensors (also sharded), or a checkpoint of PyTorch
    Convert(Convert),
    /// Check that a converted model is undamaged, or that models have the features of references
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// Name of the model
    name: String,

    #[command(flatten)]
    target: TargetFlags,
}

#[derive(Debug, Args)]
pub(super) struct Convert {
    /// Name of the model with the architecture of the weights
    #[arg(required_unless_present = "spec")]
    name: Option<String>,

    /// Weight file: .safetensors, .safetensors.index.json, .pth, .pt, .bin or .ckpt, with names of
    /// Meta's hub, Hugging Face or timm
    #[arg(long, value_name = "FILE")]
    from: PathBuf,

    /// Prefix of the names of the weights, such as `teacher.backbone`, where a file has several
    /// models [default: the teacher or moving average, else the only model]
    #[arg(long, value_name = "PREFIX")]
    weights_prefix: Option<String>,

    /// File of the converted model [default: in the cache folder]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// Description of a model that is not in the catalog (see models/*.toml)
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    spec: Option<PathBuf>,

    #[command(flatten)]
    target: TargetFlags,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Name of the model
    #[arg(required_unless_present = "goldens")]
    name: Option<String>,

    /// Folder of reference features. With a name, each `X_input.png` is run and compared with
    /// `X.safetensors` (`cls`, `attention`); without one, each weight file in the folder is
    /// converted as its `family.json` says and compared with `expected_HEIGHTxWIDTH.safetensors`
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    goldens: Option<PathBuf>,

    /// Compare with features of the official weights that others have published
    #[arg(long, requires = "name", conflicts_with_all = ["goldens", "json"])]
    known: bool,

    /// File of the published image, number 39769 of COCO's validation images of 2017 [default:
    /// downloaded]
    #[arg(long, value_name = "FILE", requires = "known")]
    image: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetFlags,
}

impl Models {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(command) => command.run(),
            Self::Pull(command) => command.run(),
            Self::Convert(command) => command.run(),
            Self::Verify(command) => command.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let store = self.store.store()?;
        if self.json {
            let model = |spec| json!({"model": spec, "state": state(&store, spec)});
            let models: Vec<_> = store.catalog().iter().map(model).collect();
            return print_json(&models);
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:<20} {:<16} SUMMARY", "NAME", "IN CACHE")?;
        for spec in store.catalog().iter() {
            let state = state(&store, spec);
            writeln!(out, "{:<20} {state:<16} {}", spec.name, spec.summary)?;
        }
        Ok(())
    }
}

/// Returns the precisions in which a model is converted, else whether its weights are downloaded.
fn state(store: &ModelStore, spec: &ModelSpec) -> String {
    let converted: Vec<&str> = Precision::VARIANTS
        .iter()
        .copied()
        .filter(|name| {
            name.parse::<Precision>()
                .is_ok_and(|precision| store.state(spec, precision) == ModelState::Converted)
        })
        .collect();
    if !converted.is_empty() {
        converted.join(", ")
    } else if store.state(spec, Precision::Fp32) == ModelState::Downloaded {
        "downloaded".to_owned()
    } else {
        "-".to_owned()
    }
}

impl Pull {
    fn run(self) -> anyhow::Result<()> {
        let store = self.target.store()?;
        let conversion = self.target.conversion()?;
        let Pulled { manifest, weights } =
            with_progress(|progress| store.pull(&self.name, conversion, progress))?;
        if let Some(weights) = weights {
            writeln!(std::io::stdout(), "weights: {weights}")?;
        }
        log_notice(store.catalog().get(&self.name)?);
        report(&manifest, &store.paths(&self.name, conversion).model)
    }
}

impl Convert {
    fn run(self) -> anyhow::Result<()> {
        let mut store = self.target.store()?;
        let name = match (self.spec, self.name) {
            (Some(path), _) => store.add_description(&path)?,
            (None, Some(name)) => name,
            (None, None) => anyhow::bail!("a model name or --spec is needed"),
        };
        let spec = store.catalog().get(&name)?;
        let conversion = self.target.conversion()?;
        let context = || format!("converting weights as {name}");
        let prefix = self.weights_prefix.as_deref();
        let file = WeightFile::read(&self.from, None, prefix).with_context(context)?;
        writeln!(std::io::stdout(), "weights: {}", file.weights().summary())?;
        let manifest = with_progress(|progress| match &self.to {
            Some(to) => convert(spec, &file, conversion, to, progress),
            None => store.convert(spec, &file, conversion, progress),
        })
        .with_context(context)?;
        log_notice(spec);
        let default = store.paths(&name, conversion).model;
        report(&manifest, self.to.as_deref().unwrap_or(&default))
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<()> {
        let store = self.target.store()?;
        let conversion = self.target.conversion()?;
        let name = match (self.name, &self.goldens) {
            (Some(name), _) => name,
            (None, Some(folder)) => {
                return goldens::verify_layouts(&self.target.runtime()?, folder, conversion);
            }
            (None, None) => anyhow::bail!("a model name or --goldens is needed"),
        };
        if self.known {
            return verify_known(&self.target, &store, &name, self.image);
        }
        let manifest = with_progress(|progress| store.verify(&name, conversion, progress))?;
        let path = store.paths(&name, conversion).model;
        if self.json {
            return print_json(&json!({"path": path, "manifest": manifest}));
        }
        let mut out = std::io::stdout();
        writeln!(out, "{} is as it was written", path.display())?;
        writeln!(out, "fingerprint {}", manifest.fingerprint)?;
        let source = &manifest.source;
        let sha256 = &manifest.source_sha256;
        writeln!(out, "made from {source} (sha256 {sha256})")?;
        if let Some(folder) = self.goldens {
            let runtime = self.target.runtime()?;
            let model = ModelFile::open(&path, PositionRule::Hub)?;
            goldens::compare(&runtime, &model, &folder)?;
        }
        Ok(())
    }
}

/// Compares a model with the features of it that others have published.
fn verify_known(
    target: &TargetFlags,
    store: &ModelStore,
    name: &str,
    image: Option<PathBuf>,
) -> anyhow::Result<()> {
    let answer = goldens::answer_for(name)?;
    let spec = store.catalog().get(name)?;
    let conversion = target.conversion()?;
    if store.state(spec, conversion) == ModelState::Absent {
        anyhow::bail!("not run: weights are not here; `dinoserve models pull {name}` gets them");
    }
    let ensure = |progress: &mut dyn Progress| {
        store.ensure(name, conversion, answer.positions, true, progress)
    };
    let model = with_progress(ensure)?;
    let image = match image {
        Some(image) => image,
        None => with_progress(|progress| store.image(KNOWN_IMAGE, progress))?,
    };
    goldens::compare_known(&target.runtime()?, &model, &answer, &image)
}

fn report(manifest: &Manifest, path: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} {} fingerprint {}",
        manifest.model, manifest.precision, manifest.fingerprint
    )?;
    writeln!(out, "{}", path.display())?;
    Ok(())
}
