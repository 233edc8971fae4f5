//! Progress of downloads and conversions.

/// A step of a long task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Step {
    /// Downloads a file; counted in bytes.
    Downloading,
    /// Converts a model; counted in transformer blocks.
    Converting,
    /// Hashes a file; counted in bytes.
    Checking,
}

impl Step {
    /// Returns the name, for people.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Receives the progress of a task.
pub trait Progress {
    /// Records that `done` units of `step` are done, of `total` if that is known.
    fn advance(&mut self, step: Step, done: u64, total: Option<u64>);
}

/// Ignores progress.
impl Progress for () {
    fn advance(&mut self, _: Step, _: u64, _: Option<u64>) {}
}
