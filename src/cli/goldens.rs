//! `dinoserve models verify --goldens`: a converted model against reference features.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};

use crate::{
    artifacts::{ModelFile, map_file},
    engine::{EnginePlan, Input, ModelSession, Provider, RequestedOutputs, Runtime},
    onnx::{
        Precision,
        weights::{TensorMap, read_safetensors},
    },
    vision::{DecodeLimits, DecodeOptions, Grid, PATCH, decode},
};

/// Largest difference, and least cosine of CLS.
fn tolerance(precision: Precision) -> (f32, f64) {
    match precision {
        Precision::Fp32 => (1e-3, 0.99999),
        Precision::Fp16 => (f32::INFINITY, 0.9995),
        Precision::Int8 => (f32::INFINITY, 0.995),
    }
}

/// Compares `cls` and `attention` for each input of `folder` and prints a line for each.
pub(super) fn compare(
    runtime: &Runtime,
    model: &ModelFile,
    folder: &Path,
) -> anyhow::Result<ExitCode> {
    let mut sessions = ModelSession::load(
        runtime,
        model,
        &EnginePlan::single(model.precision, Provider::Cpu),
    )?;
    let session = sessions.single();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let name = |entry: std::fs::DirEntry| {
        Some(
            entry
                .file_name()
                .to_str()?
                .strip_suffix("_input.png")?
                .to_owned(),
        )
    };
    let mut names: Vec<String> = entries.flatten().filter_map(name).collect();
    names.sort();
    if names.is_empty() {
        bail!("{} holds no *_input.png", folder.display());
    }
    println!(
        "{:<32} {:>14} {:>14} {:>14}",
        "REFERENCE", "CLS COSINE", "CLS LARGEST", "ATTENTION"
    );
    let (most, least) = tolerance(model.precision);
    let mut good = true;
    for name in names {
        let file = std::fs::read(folder.join(format!("{name}_input.png")))?;
        let pixels = decode(&file, DecodeOptions::default(), DecodeLimits::default())?;
        let grid = Grid {
            height: pixels.height() as usize / PATCH,
            width: pixels.width() as usize / PATCH,
        };
        let wanted = RequestedOutputs {
            attention: true,
            ..RequestedOutputs::default()
        };
        let found = session.run(&[(&Input { pixels, grid }, wanted)])?.remove(0);
        let expected = read_safetensors(&[map_file(&folder.join(format!("{name}.safetensors")))?])?;
        let cls = tensor(&expected, "cls")?;
        let attention = found.attention.iter().flatten().copied();
        let cosine = cosine(found.cls.iter().copied(), &cls);
        let largest = largest_difference(found.cls.iter().copied(), &cls);
        let of_attention = largest_difference(attention, &tensor(&expected, "attention")?);
        println!("{name:<32} {cosine:>14.8} {largest:>14.2e} {of_attention:>14.2e}");
        good &= cosine >= least && largest <= most && of_attention <= most;
    }
    if !good {
        bail!("some features differ by more than {most}, or have a cosine below {least}");
    }
    Ok(ExitCode::SUCCESS)
}

fn tensor(tensors: &TensorMap, name: &str) -> anyhow::Result<Vec<f32>> {
    Ok(tensors
        .get(name)
        .with_context(|| format!("the reference has no {name}"))?
        .to_f32())
}

/// Infinite if there are more or fewer values, or some that are no numbers.
fn largest_difference(found: impl Iterator<Item = f32>, expected: &[f32]) -> f32 {
    let found: Vec<f32> = found.collect();
    if found.len() != expected.len() || found.iter().any(|value| !value.is_finite()) {
        return f32::INFINITY;
    }
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn cosine(found: impl Iterator<Item = f32>, expected: &[f32]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, &b) in found.zip(expected) {
        let (a, b) = (f64::from(a), f64::from(b));
        (dot, aa, bb) = (dot + a * b, aa + a * a, bb + b * b);
    }
    dot / (aa * bb).sqrt()
}
