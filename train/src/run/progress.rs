//! Progress of a run: a bar with rate and remaining time on a terminal, lines otherwise.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::StepMetrics;

/// Time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Writes a line to standard error. Errors are ignored, because a closed pipe must not end the run,
/// as when Ctrl-C has ended a `tee`.
pub(crate) fn log_line(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Shows the progress on standard error.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    first: usize,
    steps: usize,
    started: Option<Instant>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Starts the display of a run at step `first` of `steps`.
    pub(super) fn new(first: usize, steps: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            let style = ProgressStyle::with_template(
                "{wide_bar} {pos}/{len} steps, {per_sec}, {eta} left  {msg}",
            )
            .expect("the template is valid");
            let bar = ProgressBar::new(steps as u64)
                .with_style(style)
                .with_position(first as u64);
            bar.reset_eta();
            bar
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            terminal,
            first,
            steps,
            started: None,
            last_line: None,
        }
    }

    /// Shows that `done` steps are done, with the metrics of the last step if it is logged.
    pub(super) fn show(&mut self, done: usize, line: Option<&StepMetrics>) {
        // Measurements before the first step do not count as training time.
        let started = *self.started.get_or_insert_with(|| {
            self.bar.reset_eta();
            Instant::now()
        });
        let text = line.map_or(String::new(), |line| {
            format!(
                "loss {:.3}, {:.0} images/s, waited {:.0} %",
                line.report.loss,
                line.images_per_second,
                100.0 * line.waited
            )
        });
        if self.terminal {
            self.bar.set_position(done as u64);
            self.bar.set_message(text);
        } else if self
            .last_line
            .is_none_or(|last| last.elapsed() >= LINE_INTERVAL)
            && line.is_some()
        {
            self.last_line = Some(Instant::now());
            let per_step = started.elapsed() / (done - self.first).saturating_sub(1).max(1) as u32;
            let left = per_step * (self.steps - done) as u32;
            log_line(format_args!(
                "step {done} of {}, {} left: {text}",
                self.steps,
                HumanDuration(left)
            ));
        }
    }

    /// Writes a line above the bar.
    pub(super) fn println(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            log_line(text);
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
