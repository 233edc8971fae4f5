//! Detects that a run no longer learns anything, and says what helps.

use std::fmt;

use super::StepMetrics;
use crate::method::StepReport;

/// Number of logged steps in a row that must show a collapse.
const PATIENCE: usize = 10;
/// Share of the maximum usage entropy below which a single prototype is used.
const MIN_USAGE: f64 = 0.05;
/// Share of the maximum target entropy above which the targets are uniform.
const MAX_ENTROPY: f64 = 0.99;
/// Spread below which all images have the same embedding.
const MIN_SPREAD: f64 = 0.01;

/// Kind of collapse of the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collapse {
    /// The teacher assigns every image to the same prototype.
    OnePrototype,
    /// The teacher assigns every image equally to all prototypes.
    Uniform,
    /// The embeddings of all images are the same.
    OnePoint,
    /// The loss or its gradient is not finite.
    NotFinite,
}

impl Collapse {
    /// Checks the last of the logged steps of a run with `prototypes` prototypes.
    pub fn detect(lines: &[StepMetrics], prototypes: usize) -> Option<Self> {
        if lines
            .last()
            .is_some_and(|line| !line.report.loss.is_finite())
        {
            return Some(Self::NotFinite);
        }
        let last = lines
            .len()
            .checked_sub(PATIENCE)
            .map(|from| &lines[from..])?;
        let max_entropy = (prototypes as f64).ln();
        // Training with labels reports none of these values, and does not collapse in these ways.
        let all = |value: fn(&StepReport) -> Option<f64>, collapsed: &dyn Fn(f64) -> bool| {
            last.iter()
                .all(|line| value(&line.report).is_some_and(collapsed))
        };
        if all(|report| report.usage_entropy, &|entropy| {
            entropy < MIN_USAGE * max_entropy
        }) {
            Some(Self::OnePrototype)
        } else if all(|report| report.teacher_entropy, &|entropy| {
            entropy > MAX_ENTROPY * max_entropy
        }) {
            Some(Self::Uniform)
        } else if all(|report| report.spread, &|spread| spread < MIN_SPREAD) {
            Some(Self::OnePoint)
        } else {
            None
        }
    }
}

impl fmt::Display for Collapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnePrototype => {
                "The teacher assigns every image to the same prototype: training has collapsed. \
                 Let the center follow faster (a smaller loss.center_momentum, or \
                 loss.centring=sinkhorn_knopp), or raise loss.teacher_temperature."
            }
            Self::Uniform => {
                "The teacher assigns every image equally to all prototypes: nothing is learned. \
                 Lower loss.teacher_temperature, or wait if this is the first epoch."
            }
            Self::OnePoint => {
                "The embeddings of all images are the same: the backbone has collapsed. Lower \
                 optimiser.learning_rate, or add loss.koleo_weight=0.1, which spreads them."
            }
            Self::NotFinite => {
                "The loss or its gradient is not finite. Lower optimiser.learning_rate or \
                 optimiser.clip; the last checkpoint, if there is one, is from before."
            }
        })
    }
}
