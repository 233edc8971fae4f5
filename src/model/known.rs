//! Features of official weights that others have published, for `models verify --known`.

use serde::Deserialize;

use super::PositionRule;
use crate::error::{Result, ResultExt};

/// Address of the image that all of them are of: number 39769 of COCO's validation images of 2017.
pub const KNOWN_IMAGE: &str = "http://images.cocodataset.org/val2017/000000039769.jpg";

/// The published features of a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAnswer {
    /// Name of the model.
    pub model: String,
    /// Size to which both sides of the image are resized, bilinear.
    pub size: usize,
    /// Rule by which positions are interpolated.
    #[serde(default)]
    pub positions: PositionRule,
    /// First values of CLS.
    pub cls: Vec<f32>,
    /// Maximum difference. It covers that transformers resizes in floats, not in bytes; for DINOv3
    /// that it computes the periods; and for DINO that it adds 1e-12 to the variance, not 1e-6.
    pub tolerance: f32,
    /// Publisher, with the script or test.
    pub source: String,
}

/// Returns all of them.
pub fn known_answers() -> Result<Vec<KnownAnswer>> {
    serde_json::from_str(include_str!("../../models/known.json")).internal("models/known.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Catalog;

    #[test]
    fn answers_are_of_models_of_the_catalog() {
        let catalog = Catalog::built_in().expect("the built-in models");
        let answers = known_answers().expect("the answers");
        assert!(!answers.is_empty());
        for KnownAnswer {
            model, size, cls, ..
        } in answers
        {
            let spec = catalog.get(&model).expect("a built-in model");
            assert!(
                size.is_multiple_of(spec.architecture.patch.pixels()),
                "{model}"
            );
            assert!(
                cls.len() >= 3 && cls.len() <= spec.architecture.dim,
                "{model}"
            );
        }
    }
}
