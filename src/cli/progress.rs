//! Progress of long work: a bar on a terminal, plain lines otherwise.

use std::{
    io::IsTerminal,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::pace::{Pace, short_bytes, short_number, short_time};
use crate::{
    artifacts::{self, Step},
    features::progress::{self, Stage},
};

/// Runs `work` and shows its progress.
pub(super) fn with_progress<T>(work: impl FnOnce(&mut dyn artifacts::Progress) -> T) -> T {
    work(&mut Progress::new(Unit::BytesOrSteps))
}

/// Returns what shows the progress of a training or an audit.
pub(super) fn show_progress() -> impl Fn(progress::Progress) -> bool + Send + Sync + 'static {
    let bar = Mutex::new(Progress::new(Unit::Items));
    move |progress::Progress { stage, done, total }| {
        let step = match stage {
            Stage::Reading => "reading",
            Stage::Choosing => "choosing patches",
            Stage::Calibrating => "calibrating",
            Stage::Validating => "cross-validating",
            Stage::Fitting => "fitting",
            Stage::Comparing => "comparing",
            Stage::Checking => "checking labels",
            Stage::Grouping => "grouping",
            Stage::Placing => "placing",
        };
        if let Ok(mut bar) = bar.lock() {
            bar.show(step, done as u64, total.map(|total| total as u64));
        }
        true
    }
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
    pace: Pace,
    /// Units since the last call of `show` that took no work.
    free: u64,
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
        let now = Instant::now();
        Self {
            unit,
            terminal: std::io::stderr().is_terminal(),
            step: String::new(),
            pace: Pace::new(now, 0),
            free: 0,
            bar: ProgressBar::hidden(),
            last_line: now,
        }
    }

    /// Records that one of the units to be shown next took no work.
    pub(super) fn skip(&mut self) {
        self.free += 1;
    }

    /// Shows `done` of `total` units of the step named `step`.
    pub(super) fn show(&mut self, step: &str, done: u64, total: Option<u64>) {
        let now = Instant::now();
        if step == self.step {
            self.pace.record(now, done, self.free);
        } else {
            self.bar.finish_and_clear();
            step.clone_into(&mut self.step);
            self.last_line = now;
            self.pace = Pace::new(now, done);
            if self.terminal {
                self.bar = ProgressBar::new(0)
                    .with_style(style())
                    .with_message(self.step.clone());
            }
        }
        self.free = 0;
        if self.terminal {
            if let Some(total) = total {
                self.bar.set_length(total);
            }
            self.bar.set_position(done);
            self.bar.set_prefix(self.status(done, total));
        } else if now - self.last_line >= LINE_INTERVAL {
            self.last_line = now;
            eprintln!("{step}: {}", self.status(done, total));
        }
    }

    /// Prints a line above the bar.
    pub(super) fn print(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
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

    /// Describes the state in words: "120 of 5,000, 12/s, 7 min left".
    fn status(&self, done: u64, total: Option<u64>) -> String {
        let mut status = self.amount(done);
        if let Some(total) = total {
            status += &format!(" of {}", self.amount(total));
        }
        if let Some(rate) = self.pace.rate() {
            let rate = match self.counts_bytes() {
                true => short_bytes(rate),
                false => short_number(rate),
            };
            status += &format!(", {rate}/s");
        }
        if let Some(left) = total.and_then(|total| self.pace.left(total)) {
            status += &format!(", {} left", short_time(left));
        }
        status
    }

    fn counts_bytes(&self) -> bool {
        self.unit == Unit::BytesOrSteps && self.step != "converting"
    }

    fn amount(&self, count: u64) -> String {
        match self.counts_bytes() {
            true => short_bytes(count as f64),
            false => HumanCount(count).to_string(),
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {prefix}").expect("the template is valid")
}
