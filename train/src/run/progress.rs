//! How far a run is: a bar with rate and time left on a terminal, lines otherwise.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::StepLine;

const LINES_EVERY: Duration = Duration::from_secs(30);

/// Says something on standard error. That nobody listens any more, as when Ctrl-C has ended a
/// `tee`, is no reason to end.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Shows steps on standard error.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    first: usize,
    steps: usize,
    started: Option<Instant>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Of a run that goes on at step `first` of `steps`.
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

    /// Shows that `done` steps are done, and what the last logged one showed.
    pub(super) fn show(&mut self, done: usize, line: Option<&StepLine>) {
        // What was measured before the first step does not count.
        let started = *self.started.get_or_insert_with(|| {
            self.bar.reset_eta();
            Instant::now()
        });
        let text = line.map_or(String::new(), |line| {
            format!(
                "loss {:.3}, {:.0} images/s, waited {:.0} %",
                line.loss,
                line.images_per_second,
                100.0 * line.waited
            )
        });
        if self.terminal {
            self.bar.set_position(done as u64);
            self.bar.set_message(text);
        } else if self
            .last_line
            .is_none_or(|last| last.elapsed() >= LINES_EVERY)
            && line.is_some()
        {
            self.last_line = Some(Instant::now());
            let each = started.elapsed() / (done - self.first).saturating_sub(1).max(1) as u32;
            let left = each * (self.steps - done) as u32;
            say(format_args!(
                "step {done} of {}, {} left: {text}",
                self.steps,
                HumanDuration(left)
            ));
        }
    }

    /// Says something without disturbing the bar.
    pub(super) fn say(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            say(text);
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
