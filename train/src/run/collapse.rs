//! Says in words when a run no longer learns anything.

use std::fmt;

use super::StepLine;

/// Logged steps in a row that must show it.
const PATIENCE: usize = 10;
/// Of the most entropy there can be: below this share of it one prototype has taken all, above that
/// one none is told apart.
const USED_BELOW: f64 = 0.05;
const UNIFORM_ABOVE: f64 = 0.99;
/// Below this spread all images have one embedding.
const TOGETHER_BELOW: f64 = 0.01;

/// How the features have collapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collapse {
    /// The teacher gives every image to the same prototype.
    OnePrototype,
    /// The teacher gives every image to all prototypes alike.
    Uniform,
    /// The embeddings of all images are the same.
    OnePoint,
    /// The loss or its gradient is no number any more.
    NotANumber,
}

impl Collapse {
    /// Looks at the last of the logged steps; `prototypes` is their number.
    pub fn of(lines: &[StepLine], prototypes: usize) -> Option<Self> {
        if lines.last().is_some_and(|line| !line.loss.is_finite()) {
            return Some(Self::NotANumber);
        }
        let last = lines
            .len()
            .checked_sub(PATIENCE)
            .map(|from| &lines[from..])?;
        let most = (prototypes as f64).ln();
        let all = |holds: &dyn Fn(&StepLine) -> bool| last.iter().all(holds);
        if all(&|line| line.usage_entropy < USED_BELOW * most) {
            Some(Self::OnePrototype)
        } else if all(&|line| line.teacher_entropy > UNIFORM_ABOVE * most) {
            Some(Self::Uniform)
        } else if all(&|line| line.spread < TOGETHER_BELOW) {
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
                "The teacher gives every image to the same prototype: nothing is learned any more. Let the center follow \
                 faster (a smaller loss.center_momentum, or loss.centring=sinkhorn_knopp), or raise \
                 loss.teacher_temperature."
            }
            Self::Uniform => {
                "The teacher gives every image to all prototypes alike: nothing is learned. Lower \
                 loss.teacher_temperature, or wait if this is the first epoch."
            }
            Self::OnePoint => {
                "The embeddings of all images are the same: the backbone has collapsed. Lower \
                 optimiser.learning_rate, or add loss.koleo_weight=0.1, which drives them apart."
            }
            Self::NotANumber => {
                "The loss or its gradient is no number any more. Lower optimiser.learning_rate or \
                 optimiser.clip; a checkpoint, if there is one, is from before."
            }
        })
    }
}
