//! How features are compared with references.

use anyhow::Context;

use crate::onnx::{Precision, weights::TensorMap};

/// Returns the maximum difference of features, and the minimum cosine similarity of CLS, between
/// a model with trained weights and references of other programs.
pub(super) fn tolerance(precision: Precision) -> (f32, f64) {
    match precision {
        Precision::Fp32 => (1e-3, 0.99999),
        Precision::Fp16 => (f32::INFINITY, 0.9995),
        Precision::Bf16 => (f32::INFINITY, 0.9999),
        Precision::Int8 => (f32::INFINITY, 0.995),
    }
}

/// Returns the values of a reference.
pub(super) fn tensor(tensors: &TensorMap, name: &str) -> anyhow::Result<Vec<f32>> {
    let tensor = tensors.get(name);
    Ok(tensor
        .with_context(|| format!("the reference has no {name}"))?
        .to_f32())
}

/// Returns the largest difference; infinity if the lengths differ or a value is not finite.
pub(super) fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() || found.iter().chain(expected).any(|value| !value.is_finite())
    {
        return f32::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Returns the cosine similarity.
pub(super) fn cosine(found: &[f32], expected: &[f32]) -> f64 {
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
        assert_eq!(largest_difference(&[1.0], &[f32::NAN]), f32::INFINITY);
    }

    #[test]
    fn the_cosine_does_not_depend_on_lengths() {
        assert!((cosine(&[1.0, 1.0], &[3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5f64.sqrt()).abs() < 1e-12);
    }
}
