//! Progress of work that takes long.

use crate::names::option_enum;

option_enum! {
    /// Stage of a training, an audit or a map.
    pub enum Stage {
        /// Examples or items are read.
        Reading,
        /// The patches of a bank are chosen.
        Choosing,
        /// The good images of a bank are scored.
        Calibrating,
        /// Fits of the cross-validation.
        Validating,
        /// Evaluations of the final fit, whose number is not known in advance.
        Fitting,
        /// All vectors of an audit or a map are compared with all others.
        Comparing,
        /// Labels are compared with those of similar images.
        Checking,
        /// Groups of similar images are formed.
        Grouping,
        /// The points of a map are moved, counted in epochs.
        Placing,
    }
}

/// Progress of a training, an audit or a map.
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
