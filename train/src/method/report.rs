//! The numbers that one training step reports.

use serde::{Deserialize, Serialize};

/// Losses and statistics of one step, as in `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StepReport {
    /// The minimized loss: the weighted sum of the parts below.
    pub loss: f64,
    /// Cross-entropy between views.
    pub view_loss: f64,
    /// Cross-entropy of masked patches, if this loss is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub patch_loss: Option<f64>,
    /// KoLeo loss, if it is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub koleo: Option<f64>,
    /// Mean entropy of the teacher's targets, in nats.
    pub teacher_entropy: f64,
    /// Entropy of the batch mean of the targets, in nats: how many prototypes are in use.
    pub usage_entropy: f64,
    /// Spread of the teacher's embeddings: see [`spread`](super::loss::spread).
    pub spread: f64,
    /// Norm of the gradient before clipping.
    pub gradient: f64,
}

impl StepReport {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            loss: self.loss + other.loss,
            view_loss: self.view_loss + other.view_loss,
            patch_loss: sum(self.patch_loss, other.patch_loss),
            koleo: sum(self.koleo, other.koleo),
            teacher_entropy: self.teacher_entropy + other.teacher_entropy,
            usage_entropy: self.usage_entropy + other.usage_entropy,
            spread: self.spread + other.spread,
            gradient: self.gradient + other.gradient,
        }
    }

    pub(super) fn times(self, factor: f64) -> Self {
        Self {
            loss: self.loss * factor,
            view_loss: self.view_loss * factor,
            patch_loss: self.patch_loss.map(|loss| loss * factor),
            koleo: self.koleo.map(|koleo| koleo * factor),
            teacher_entropy: self.teacher_entropy * factor,
            usage_entropy: self.usage_entropy * factor,
            spread: self.spread * factor,
            gradient: self.gradient * factor,
        }
    }
}

fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.map_or(b, |a| Some(a + b.unwrap_or(0.0)))
}
