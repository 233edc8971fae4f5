//! Progress of long work: a bar on a terminal, plain lines otherwise.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::artifacts::{self, Step};

/// Runs `work` and shows its progress.
pub(super) fn with_progress<T>(work: impl FnOnce(&mut dyn artifacts::Progress) -> T) -> T {
    work(&mut Progress::new(Unit::BytesOrSteps))
}

/// The unit of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Steps while a model is converted, else bytes.
    BytesOrSteps,
    /// Images, or steps of a computation.
    Items,
}

/// Shows progress on standard error.
pub(super) struct Progress {
    unit: Unit,
    terminal: bool,
    step: String,
    bar: ProgressBar,
    last_line: Instant,
}

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Removes the bar when the work ends, also if it fails.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl artifacts::Progress for Progress {
    fn advance(&mut self, step: Step, done: u64, total: Option<u64>) {
        self.show(step.name(), done, total);
    }
}

impl Progress {
    pub(super) fn new(unit: Unit) -> Self {
        Self {
            unit,
            terminal: std::io::stderr().is_terminal(),
            step: String::new(),
            bar: ProgressBar::hidden(),
            last_line: Instant::now(),
        }
    }

    /// Shows `done` of `total` units of the step named `step`.
    pub(super) fn show(&mut self, step: &str, done: u64, total: Option<u64>) {
        if step != self.step {
            self.bar.finish_and_clear();
            step.clone_into(&mut self.step);
            self.last_line = Instant::now();
            if self.terminal {
                self.bar = ProgressBar::new(0)
                    .with_style(self.style())
                    .with_message(self.step.clone());
            }
        }
        if self.terminal {
            if let Some(total) = total {
                self.bar.set_length(total);
            }
            self.bar.set_position(done);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let of = total
                .map(|total| format!(" of {}", self.amount(total)))
                .unwrap_or_default();
            eprintln!("{step}: {}{of}", self.amount(done));
        }
    }

    /// Returns a callback that counts the bytes of the slices it is given.
    pub(super) fn of_bytes(
        step: &'static str,
        total: Option<u64>,
    ) -> impl FnMut(&[u8]) + Send + 'static {
        let mut progress = Self::new(Unit::BytesOrSteps);
        let mut done = 0;
        move |bytes| {
            done += bytes.len() as u64;
            progress.show(step, done, total);
        }
    }

    fn counts_bytes(&self) -> bool {
        self.unit == Unit::BytesOrSteps && self.step != "converting"
    }

    fn amount(&self, count: u64) -> String {
        if self.counts_bytes() {
            indicatif::BinaryBytes(count).to_string()
        } else {
            count.to_string()
        }
    }

    fn style(&self) -> ProgressStyle {
        let template = if self.counts_bytes() {
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left"
        } else {
            "{msg} {wide_bar} {pos}/{len} {per_sec} {eta} left"
        };
        ProgressStyle::with_template(template).expect("the template is valid")
    }
}
