//! `dinoserve models verify --goldens`: compares a converted model with reference features.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::{
    artifacts::{ModelFile, map_file},
    engine::{EnginePlan, Input, ModelSession, Provider, RequestedOutputs, Runtime},
    onnx::{
        Precision,
        weights::{TensorMap, read_safetensors},
    },
    vision::{DecodeLimits, DecodeOptions, Size, decode},
};

/// Returns the maximum difference of features, and the minimum cosine similarity of CLS.
fn tolerance(precision: Precision) -> (f32, f64) {
    match precision {
        Precision::Fp32 => (1e-3, 0.99999),
        Precision::Fp16 => (f32::INFINITY, 0.9995),
        Precision::Bf16 => (f32::INFINITY, 0.9999),
        Precision::Int8 => (f32::INFINITY, 0.995),
    }
}

/// Compares `cls` and `attention` for each input of `folder`, and prints a line for each.
pub(super) fn compare(runtime: &Runtime, model: &ModelFile, folder: &Path) -> anyhow::Result<()> {
    let plan = EnginePlan::single(model.precision, Provider::of_processor(model.dialect));
    let mut sessions = ModelSession::load(runtime, model, &plan)?;
    let session = sessions.single();
    println!(
        "{:<32} {:>14} {:>14} {:>14}",
        "REFERENCE", "CLS COSINE", "CLS LARGEST", "ATTENTION"
    );
    let (max_difference, min_cosine) = tolerance(model.precision);
    let mut good = true;
    for name in reference_names(folder)? {
        let file = std::fs::read(folder.join(format!("{name}_input.png")))?;
        let pixels = decode(&file, DecodeOptions::default(), DecodeLimits::default())?;
        let grid = model.spec.architecture.patch.grid(Size::of(&pixels));
        let outputs = RequestedOutputs {
            attention: true,
            ..RequestedOutputs::default()
        };
        let input = Input { pixels, grid };
        let found = session.run(&[(&input, outputs)])?.remove(0);
        let expected = read_safetensors(&[map_file(&folder.join(format!("{name}.safetensors")))?])?;
        let cls: Vec<f32> = found.cls.iter().copied().collect();
        let attention: Vec<f32> = found.attention.iter().flatten().copied().collect();
        let expected_cls = tensor(&expected, "cls")?;
        let cosine = cosine(&cls, &expected_cls);
        let cls_difference = largest_difference(&cls, &expected_cls);
        let attention_difference = largest_difference(&attention, &tensor(&expected, "attention")?);
        println!("{name:<32} {cosine:>14.8} {cls_difference:>14.2e} {attention_difference:>14.2e}");
        good &= cosine >= min_cosine
            && cls_difference <= max_difference
            && attention_difference <= max_difference;
    }
    ensure!(
        good,
        "some features differ by more than {max_difference}, or have a cosine below {min_cosine}"
    );
    Ok(())
}

/// Returns the `X` of each `X_input.png`, sorted.
fn reference_names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let name = file_name.to_str().unwrap_or_default();
        names.extend(name.strip_suffix("_input.png").map(str::to_owned));
    }
    names.sort();
    ensure!(!names.is_empty(), "{} has no *_input.png", folder.display());
    Ok(names)
}

fn tensor(tensors: &TensorMap, name: &str) -> anyhow::Result<Vec<f32>> {
    let tensor = tensors.get(name);
    Ok(tensor
        .with_context(|| format!("the reference has no {name}"))?
        .to_f32())
}

/// Returns infinity if the lengths differ or a value is not finite.
fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() || found.iter().any(|value| !value.is_finite()) {
        return f32::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

fn cosine(found: &[f32], expected: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(found, expected) / (dot(found, found) * dot(expected, expected)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_infinite_values_differ_infinitely() {
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.5, 2.25]), 0.5);
        assert_eq!(largest_difference(&[1.0], &[1.0, 2.0]), f32::INFINITY);
        assert_eq!(largest_difference(&[f32::NAN], &[1.0]), f32::INFINITY);
    }

    #[test]
    fn the_cosine_does_not_depend_on_lengths() {
        assert!((cosine(&[1.0, 1.0], &[3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5f64.sqrt()).abs() < 1e-12);
    }
}
