//! Progress of work that takes long.

use crate::names::option_enum;

option_enum! {
    /// Stage of a training.
    pub enum Stage {
        /// Examples are read.
        Reading,
        /// The patches of a bank are chosen.
        Choosing,
        /// The good images of a bank are scored.
        Calibrating,
        /// Fits of the cross-validation.
        Validating,
        /// Evaluations of the final fit, whose number is not known in advance.
        Fitting,
    }
}

/// Progress of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Current stage.
    pub stage: Stage,
    /// Number of finished steps of the stage.
    pub done: usize,
    /// Number of all steps of the stage, if known.
    pub total: Option<usize>,
}

impl Progress {
    /// Returns the progress after `done` steps of a stage.
    pub fn new(stage: Stage, done: usize, total: Option<usize>) -> Self {
        Self { stage, done, total }
    }
}

/// Gets the progress many times a second. Returns whether to continue.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> bool;
