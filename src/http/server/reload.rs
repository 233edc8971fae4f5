//! Reloads API keys and certificates when their files change, so that they can be rotated without a
//! restart.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{error::Result, telemetry};

/// Calls `reload` when one of `files` has changed, checked at each interval, or at once on SIGHUP.
///
/// If `reload` fails, the previous content stays in force until the files change again. `label`
/// names the files in metrics and logs. Never returns.
pub(crate) async fn reload_on_change(
    label: &'static str,
    files: Vec<PathBuf>,
    every: Duration,
    mut reload: impl FnMut() -> Result<()> + Send,
) {
    // Empty, because the files may have changed since the start: a model download takes minutes.
    let mut known = None;
    let mut ticks = interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hangup = Hangup::new();
    loop {
        let is_forced = tokio::select! {
            _ = ticks.tick() => false,
            () = hangup.next() => true,
        };
        let now = stamps(&files);
        if known.as_ref() == Some(&now) && !is_forced {
            continue;
        }
        let is_first = known.replace(now).is_none();
        match reload() {
            Ok(()) if is_first => {}
            Ok(()) => tracing::info!(file = label, "reloaded"),
            Err(error) => {
                telemetry::metrics()
                    .reload_failures
                    .with_label_values(&[label])
                    .inc();
                tracing::error!(
                    file = label, %error,
                    "reload failed; the previous content stays in force"
                );
            }
        }
    }
}

/// Returns time, length and inode of each file. Links are followed, because mounted secrets are
/// links that change.
fn stamps(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64, u64)>> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some((metadata.modified().ok()?, metadata.len(), inode))
    };
    files.iter().map(stamp).collect()
}

/// SIGHUP, on systems that have it.
struct Hangup {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    fn new() -> Self {
        #[cfg(unix)]
        return Self {
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        };
        #[cfg(not(unix))]
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
