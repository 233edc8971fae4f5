//! References of a known model: pictures, and features of each.

use std::path::Path;

use anyhow::{Context, ensure};

use super::compare::{cosine, largest_difference, tensor, tolerance};
use crate::{
    artifacts::{ModelFile, map_file},
    engine::{EnginePlan, Input, ModelSession, Provider, RequestedOutputs, Runtime},
    onnx::weights::read_safetensors,
    vision::{DecodeLimits, DecodeOptions, Size, decode},
};

/// Compares `cls` and `attention` for each input of `folder`, and prints a line for each.
pub(in crate::cli) fn compare(
    runtime: &Runtime,
    model: &ModelFile,
    folder: &Path,
) -> anyhow::Result<()> {
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
