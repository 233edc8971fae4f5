//! Progress of long work: a bar on a terminal, plain lines otherwise.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Bytes where the step's name says so, else steps.
    BytesOrSteps,
    Images,
    /// Parts of a computation.
    Steps,
}

/// Shows progress on standard error.
pub(super) struct Progress {
    unit: Unit,
    terminal: bool,
    step: String,
    bar: ProgressBar,
    started: Instant,
    last_line: Instant,
}

/// Also when the work failed.
impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Seconds between two plain lines.
const LINES_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    pub(super) fn new(unit: Unit) -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self {
            unit,
            terminal,
            step: String::new(),
            bar: ProgressBar::hidden(),
            started: now,
            last_line: now,
        }
    }

    /// Shows that `done` of `total` of `step` are done.
    pub(super) fn show(&mut self, step: &str, done: u64, total: Option<u64>) {
        if step != self.step {
            self.bar.finish_and_clear();
            step.clone_into(&mut self.step);
            self.started = Instant::now();
            self.last_line = self.started;
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
        } else if self.last_line.elapsed() >= LINES_EVERY {
            self.last_line = Instant::now();
            let of = total
                .map(|total| format!(" of {}", self.amount(total)))
                .unwrap_or_default();
            eprintln!("{step}: {}{of}", self.amount(done));
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    /// Shows bytes that pass by, until it is dropped.
    pub(super) fn of_bytes(
        step: &'static str,
        total: Option<u64>,
    ) -> impl FnMut(&[u8]) + Send + 'static {
        let (mut progress, mut done) = (Self::new(Unit::BytesOrSteps), 0);
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
