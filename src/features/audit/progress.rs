//! Progress of an audit.

use crate::names::option_enum;

option_enum! {
    /// Stage of an audit.
    pub enum Stage {
        /// Vectors are read.
        Reading,
        /// All vectors are compared with all others.
        Comparing,
        /// Labels are compared with those of similar images.
        Checking,
        /// Groups are formed.
        Grouping,
    }
}

/// Gets the stage and its finished and all steps, many times. Returns whether to continue.
pub type Watch<'a> = &'a mut dyn FnMut(Stage, usize, usize) -> bool;
