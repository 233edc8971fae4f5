//! References of a family: the weights of one model in several layouts, each converted and
//! compared.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::{
    compare::{cosine, largest_difference, tolerance},
    family,
    references::{self, Reference},
};
use crate::{
    artifacts::{ModelFile, WeightFile, convert},
    engine::{EnginePlan, Features, Input, ModelSession, Provider, RequestedOutputs, Runtime},
    model::{ModelSpec, PositionRule},
    onnx::{Conversion, Precision, weights::RawTensor},
    vision::Size,
};

/// Maximum difference of tokens in fp32.
const MAX_DIFFERENCE: f32 = 2e-4;
/// The same of attention, ten times what rounding makes of it.
const MAX_ATTENTION: f32 = 2e-5;
/// Minimum cosine similarity of CLS in fp32.
const MIN_COSINE: f64 = 0.999_999;

/// Prefix of references by the authors' code, and by transformers where that differs.
const AUTHORS: &str = "expected_";
const TRANSFORMERS: &str = "hf_expected_";

/// Converts each weight file of `folder` with the description in its `family.json`, runs every
/// reference, and prints the largest differences.
///
/// # Errors
/// If a difference is beyond the tolerance, or nothing was compared.
pub(in crate::cli) fn verify_layouts(
    runtime: &Runtime,
    folder: &Path,
    conversion: Conversion,
) -> anyhow::Result<()> {
    let spec = family::read(folder)?;
    let layouts = weight_files(folder)?;
    ensure!(
        !layouts.is_empty(),
        "nothing was compared: {} has no weight file",
        folder.display()
    );
    println!(
        "{:<28} {:>10} {:>12} {:>12} {:>12} {:>12}",
        "WEIGHTS", "SIZE", "CLS COSINE", "CLS", "TOKENS", "ATTENTION"
    );
    let scratch = tempfile::tempdir().context("a temporary folder is needed")?;
    let mut worst = Vec::new();
    for layout in &layouts {
        let name = layout.strip_prefix(folder).unwrap_or(layout).display();
        let weights = WeightFile::read(layout, None, None)?;
        let prefix = prefix_for(folder, &spec, &weights)?;
        let to = scratch.path().join("model.onnx");
        convert(&spec, &weights, conversion, &to, &mut ())
            .with_context(|| format!("converting {name}"))?;
        let model = ModelFile::open(&to, PositionRule::Hub)?;
        let plan = EnginePlan::single(model.precision, Provider::of_processor(model.dialect));
        let mut sessions = ModelSession::load(runtime, &model, &plan)?;
        for file in references::files(folder, prefix)? {
            let reference = Reference::read(&file, prefix, spec.architecture.patch)?;
            let found = run(sessions.single(), &model, &reference)?;
            let differences =
                Differences::of(&found, &reference).with_context(|| file.display().to_string())?;
            let Differences {
                cosine,
                cls,
                tokens,
                attention,
            } = differences;
            println!(
                "{:<28} {:>10} {cosine:>12.8} {cls:>12.1e} {tokens:>12.1e} {attention:>12.1e}",
                name.to_string(),
                reference.size
            );
            if !differences.are_small(conversion.precision) {
                worst.push(format!("{name} at {}", reference.size));
            }
        }
    }
    ensure!(
        worst.is_empty(),
        "beyond the tolerance: {}",
        worst.join(", ")
    );
    Ok(())
}

/// Returns the weight files of a folder and of the folders in it, sorted.
fn weight_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let entries = std::fs::read_dir(&current)
            .with_context(|| format!("cannot read {}", current.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && current == folder {
                folders.push(path);
            } else if is_weight_file(&path) {
                found.push(path);
            }
        }
    }
    // A sharded model is read by its index.
    let shards: Vec<PathBuf> = found
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .filter_map(|index| index.parent().map(Path::to_owned))
        .collect();
    found.retain(|path| {
        let is_shard = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains("-of-"));
        !is_shard || !shards.iter().any(|folder| path.starts_with(folder))
    });
    found.sort();
    Ok(found)
}

fn is_weight_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let endings = [
        ".safetensors",
        ".pth",
        ".pt",
        ".bin",
        ".ckpt",
        ".safetensors.index.json",
    ];
    let is_reference = name.starts_with(AUTHORS) || name.starts_with(TRANSFORMERS);
    path.is_file() && !is_reference && endings.iter().any(|ending| name.ends_with(ending))
}

/// Returns the prefix of the references for a layout. The files of DINOv3 differ in their periods:
/// those without any have references by transformers.
fn prefix_for(
    folder: &Path,
    spec: &ModelSpec,
    weights: &WeightFile,
) -> anyhow::Result<&'static str> {
    let computes_periods =
        spec.architecture.has_rope() && !weights.weights().has("rope_embed.periods");
    let preferred = match computes_periods {
        true => [TRANSFORMERS, AUTHORS],
        false => [AUTHORS, TRANSFORMERS],
    };
    for prefix in preferred {
        if !references::files(folder, prefix)?.is_empty() {
            return Ok(prefix);
        }
    }
    bail!(
        "nothing was compared: {} has no {AUTHORS}HEIGHTxWIDTH.safetensors",
        folder.display()
    )
}

fn run(
    session: &mut ModelSession,
    model: &ModelFile,
    reference: &Reference,
) -> anyhow::Result<Features> {
    let pixels = reference.pixels.clone();
    let grid = model.spec.architecture.patch.grid(Size::of(&pixels));
    let outputs = RequestedOutputs {
        patch_tokens: true,
        registers: true,
        attention: true,
        layers_cls: true,
        layers_patch: true,
    };
    let mut features = session.run(&[(&Input { pixels, grid }, outputs)])?;
    Ok(features.remove(0))
}

/// How features differ from their references.
struct Differences {
    cosine: f64,
    cls: f32,
    /// Largest of patch tokens, registers and the tokens of the last blocks.
    tokens: f32,
    attention: f32,
}

impl Differences {
    /// Compares every output for which there is a reference; CLS must have one.
    fn of(found: &Features, reference: &Reference) -> anyhow::Result<Self> {
        let expected = |name: &str| reference.expected.get(name).map(RawTensor::to_f32);
        let cls = expected("cls").context("the reference has no cls")?;
        let found_cls: Vec<f32> = found.cls.iter().copied().collect();
        let others = [
            ("patch_tokens", values(found.patch_tokens.as_ref())),
            ("registers", values(found.registers.as_ref())),
            ("layers_cls", values(found.layers_cls.as_ref())),
            ("layers_patch", values(found.layers_patch.as_ref())),
        ];
        let mut tokens = 0.0f32;
        for (name, found) in others {
            if let Some(expected) = expected(name) {
                tokens = tokens.max(largest_difference(&found, &expected));
            }
        }
        let attention = expected("attention").map_or(0.0, |expected| {
            largest_difference(&values(found.attention.as_ref()), &expected)
        });
        Ok(Self {
            cosine: cosine(&found_cls, &cls),
            cls: largest_difference(&found_cls, &cls),
            tokens,
            attention,
        })
    }

    fn are_small(&self, precision: Precision) -> bool {
        if precision == Precision::Fp32 {
            self.cls.max(self.tokens) <= MAX_DIFFERENCE
                && self.attention <= MAX_ATTENTION
                && self.cosine >= MIN_COSINE
        } else {
            let (_, min_cosine) = tolerance(precision);
            self.cosine >= min_cosine && self.tokens.is_finite() && self.attention.is_finite()
        }
    }
}

/// Returns the values of an output, row-major; none if the model does not have it.
fn values<D: ndarray::Dimension>(output: Option<&ndarray::Array<f32, D>>) -> Vec<f32> {
    output.map_or_else(Vec::new, |output| output.iter().copied().collect())
}
