//! Published features of official weights.

use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::compare::largest_difference;
use crate::{
    artifacts::ModelFile,
    engine::{EnginePlan, Input, ModelSession, Provider, RequestedOutputs, Runtime},
    model::{KnownAnswer, known_answers},
    vision::{DecodeLimits, DecodeOptions, ResampleFilter, ResizeMode, Transform, decode},
};

/// Returns what is published of the model called `name`.
pub(in crate::cli) fn answer_for(name: &str) -> anyhow::Result<KnownAnswer> {
    let mut answers = known_answers()?;
    match answers.iter().position(|answer| answer.model == name) {
        Some(index) => Ok(answers.swap_remove(index)),
        None => {
            let known: Vec<String> = answers.into_iter().map(|answer| answer.model).collect();
            bail!(
                "no features of {name} are known; there are some of {}",
                known.join(", ")
            )
        }
    }
}

/// Compares CLS of the image with the published values, and prints both.
///
/// # Errors
/// If a value differs by more than the tolerance.
pub(in crate::cli) fn compare_known(
    runtime: &Runtime,
    model: &ModelFile,
    answer: &KnownAnswer,
    image: &Path,
) -> anyhow::Result<()> {
    let file = std::fs::read(image).with_context(|| image.display().to_string())?;
    let decoded = decode(&file, DecodeOptions::default(), DecodeLimits::default())?;
    let transform = Transform {
        mode: ResizeMode::Squash,
        size: answer.size,
        filter: ResampleFilter::Bilinear,
        patch: model.spec.architecture.patch,
        max_patches: usize::MAX,
        shrinks: false,
    };
    let (pixels, grid) = transform.apply(&decoded)?;
    let plan = EnginePlan::single(model.precision, Provider::of_processor(model.dialect));
    let mut sessions = ModelSession::load(runtime, model, &plan)?;
    let input = Input { pixels, grid };
    let found = sessions
        .single()
        .run(&[(&input, RequestedOutputs::default())])?
        .remove(0);
    let found: Vec<f32> = found.cls.iter().take(answer.cls.len()).copied().collect();
    let difference = largest_difference(&found, &answer.cls);
    println!("published by {}", answer.source);
    println!("published {:?}", answer.cls);
    println!("found     {found:?}");
    println!(
        "largest difference {difference:.1e}; {} is allowed",
        answer.tolerance
    );
    ensure!(
        difference <= answer.tolerance,
        "the features are not those that are published; is the image {}?",
        crate::model::KNOWN_IMAGE
    );
    Ok(())
}
