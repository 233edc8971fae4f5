//! Speed and remaining time of long work, in few digits.

use std::time::{Duration, Instant};

/// Time constant of the smoothed rate: work further back counts for little.
const SMOOTHING: Duration = Duration::from_secs(15);
/// Time before a first rate is stated.
const SETTLING: Duration = Duration::from_secs(2);

/// The smoothed rate of a step.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
    /// Time and work of the last measurement.
    last: (Instant, u64),
    /// Sums of work and of seconds, older ones with less weight.
    work: f64,
    seconds: f64,
}

impl Pace {
    /// Begins at `now`, when `done` units need no more work.
    pub(super) fn new(now: Instant, done: u64) -> Self {
        Self {
            started: now,
            last: (now, done),
            work: 0.0,
            seconds: 0.0,
        }
    }

    /// Records that `done` units are done at `now`. `free` of the units since the last call took no
    /// work, such as items that were skipped.
    pub(super) fn record(&mut self, now: Instant, done: u64, free: u64) {
        let (last, before) = self.last;
        let seconds = now.saturating_duration_since(last).as_secs_f64();
        let weight = (-seconds / SMOOTHING.as_secs_f64()).exp();
        let work = done.saturating_sub(before).saturating_sub(free);
        self.work = self.work * weight + work as f64;
        self.seconds = self.seconds * weight + seconds;
        self.last = (now, done);
    }

    /// Returns the units per second; `None` as long as too little is known.
    pub(super) fn rate(&self) -> Option<f64> {
        let (last, _) = self.last;
        let settled = last.saturating_duration_since(self.started) >= SETTLING;
        (settled && self.work > 0.0).then(|| self.work / self.seconds)
    }

    /// Returns the time that the units up to `total` will take; `None` if it is unknown or nothing
    /// is left.
    pub(super) fn left(&self, total: u64) -> Option<Duration> {
        let (_, done) = self.last;
        let units = total.checked_sub(done).filter(|&units| units > 0)?;
        Duration::try_from_secs_f64(units as f64 / self.rate()?).ok()
    }
}

/// Writes a number with one to three digits: 0, 0.001, 0.25, 3.5, 42, 350, 12,300.
pub(super) fn short_number(value: f64) -> String {
    if value <= 0.0 {
        return "0".to_owned();
    }
    if value < 0.095 {
        let decimals = 1 - value.log10().floor() as i32;
        let text = format!("{value:.*}", decimals.unsigned_abs() as usize);
        return text.trim_end_matches('0').to_owned();
    }
    if value < 0.95 {
        return format!("{value:.2}");
    }
    if value < 9.95 {
        return format!("{value:.1}");
    }
    let digits = value.log10().floor() as i32 + 1;
    let unit = 10f64.powi((digits - 3).max(0));
    let rounded = ((value / unit).round() * unit).round() as u64;
    indicatif::HumanCount(rounded).to_string()
}

/// Writes a size in bytes with two or three digits: 512 B, 3.5 MiB, 350 MiB.
pub(super) fn short_bytes(bytes: f64) -> String {
    if bytes < 1023.5 {
        return format!("{bytes:.0} B");
    }
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    // 1023.5 would be written as 1024.
    let index = ((bytes / 1023.5).ln() / 1024f64.ln()) as usize;
    let index = index.min(units.len() - 1);
    let size = bytes / 1024f64.powi(index as i32 + 1);
    format!("{} {}", short_number(size), units[index])
}

/// Writes a time in its largest unit: "42 s", "7 min", "2.5 h", "3.2 days".
pub(super) fn short_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let hours = seconds / 3600.0;
    if seconds < 59.5 {
        format!("{:.0} s", seconds.max(1.0))
    } else if hours < 0.99 {
        format!("{:.0} min", seconds / 60.0)
    } else if hours < 47.5 {
        format!("{} h", short_number(hours))
    } else {
        format!("{} days", short_number(hours / 24.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_first_step_states_no_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        pace.record(at(start, 0.1), 1, 0);
        assert_eq!(pace.rate(), None);
        assert_eq!(pace.left(12), None);
    }

    #[test]
    fn an_even_rate_is_found_whatever_was_skipped() {
        let start = Instant::now();
        // A thousand units were done before; a million more are skipped in the first second.
        let mut pace = Pace::new(start, 1000);
        pace.record(at(start, 1.0), 1_001_010, 1_000_000);
        for second in 2..60 {
            pace.record(
                at(start, f64::from(second)),
                1_001_000 + 10 * second as u64,
                0,
            );
        }
        let rate = pace.rate().expect("a rate");
        assert!((rate - 10.0).abs() < 0.2, "{rate}");
        let left = pace.left(1_001_590 + 600).expect("a time");
        assert!((left.as_secs_f64() - 60.0).abs() < 2.0, "{left:?}");
        assert_eq!(pace.left(1_001_590), None, "nothing is left");
    }

    #[test]
    fn a_change_of_the_rate_shows_gradually() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        pace.record(at(start, 60.0), 600, 0);
        pace.record(at(start, 61.0), 620, 0);
        let rate = pace.rate().expect("a rate");
        assert!((10.0..11.0).contains(&rate), "{rate}");
        pace.record(at(start, 180.0), 3000, 0);
        let rate = pace.rate().expect("a rate");
        assert!((19.0..20.5).contains(&rate), "{rate}");
    }

    #[test]
    fn numbers_have_two_or_three_digits() {
        let found = [
            0.0,
            0.001,
            0.0123,
            0.04,
            0.25,
            3.46,
            9.96,
            12.34,
            99.7,
            345.6,
            12_345.0,
            795_320.885,
        ]
        .map(short_number);
        assert_eq!(
            found,
            [
                "0", "0.001", "0.012", "0.04", "0.25", "3.5", "10", "12", "100", "346", "12,300",
                "795,000"
            ]
        );
        let found = [1000.0, 1500.0, 360e6, 2e12].map(short_bytes);
        assert_eq!(found, ["1000 B", "1.5 KiB", "343 MiB", "1.8 TiB"]);
        let found = [0.2, 42.4, 100.0, 3570.0, 9000.0, 300_000.0]
            .map(|seconds| short_time(Duration::from_secs_f64(seconds)));
        assert_eq!(
            found,
            ["1 s", "42 s", "2 min", "1.0 h", "2.5 h", "3.5 days"]
        );
    }
}
