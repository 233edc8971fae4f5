//! The numbers that one training step reports.

use serde::{Deserialize, Serialize};

/// Losses and statistics of one step, as in `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StepReport {
    /// The minimized loss: the weighted sum of DINO's parts below, or the cross-entropy with the
    /// labels.
    pub loss: f64,
    /// Share of the views whose label the student predicts, if the images are labeled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accuracy: Option<f64>,
    /// Cross-entropy between views, in DINO.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub view_loss: Option<f64>,
    /// Cross-entropy of masked patches, if this loss is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub patch_loss: Option<f64>,
    /// KoLeo loss, if it is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub koleo: Option<f64>,
    /// Mean entropy of the teacher's targets, in nats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub teacher_entropy: Option<f64>,
    /// Entropy of the batch mean of the targets, in nats: how many prototypes are in use.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage_entropy: Option<f64>,
    /// Spread of the teacher's embeddings: see [`spread`](super::loss::spread).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spread: Option<f64>,
    /// Norm of the gradient before clipping.
    pub gradient: f64,
}

impl StepReport {
    pub(super) fn plus(self, other: Self) -> Self {
        self.combine(other, |a, b| a + b)
    }

    pub(super) fn times(self, factor: f64) -> Self {
        self.combine(self, |a, _| a * factor)
    }

    fn combine(self, other: Self, function: impl Fn(f64, f64) -> f64) -> Self {
        // A loss that only one report has keeps its value.
        let optional = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(function(a, b)),
            (a, b) => a.or(b),
        };
        Self {
            loss: function(self.loss, other.loss),
            accuracy: optional(self.accuracy, other.accuracy),
            view_loss: optional(self.view_loss, other.view_loss),
            patch_loss: optional(self.patch_loss, other.patch_loss),
            koleo: optional(self.koleo, other.koleo),
            teacher_entropy: optional(self.teacher_entropy, other.teacher_entropy),
            usage_entropy: optional(self.usage_entropy, other.usage_entropy),
            spread: optional(self.spread, other.spread),
            gradient: function(self.gradient, other.gradient),
        }
    }
}
