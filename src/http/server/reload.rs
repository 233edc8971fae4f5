//! Files that are read anew when they have changed: API keys and certificates are rotated without a
//! restart.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{error::Result, telemetry};

/// Looks at files every so often, and at once on SIGHUP, and calls `reload` when one of them is
/// another than before. If that fails, what was read last stays in force, and it is tried again
/// when the files change again. `label` names the files in metrics and logs. Never ends by itself.
pub(crate) async fn reload_on_change(
    label: &'static str,
    files: Vec<PathBuf>,
    every: Duration,
    mut reload: impl FnMut() -> Result<()> + Send,
) {
    // What was read at the start may have changed since: a model may have been downloaded in
    // between.
    let mut known = None;
    let mut ticks = interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hangup = Hangup::new();
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            () = hangup.next() => true,
        };
        let now = fingerprint(&files);
        if known.as_ref() == Some(&now) && !asked {
            continue;
        }
        let is_first = known.replace(now).is_none();
        match reload() {
            Ok(()) if is_first => {}
            Ok(()) => tracing::info!(file = label, "read anew"),
            Err(error) => {
                telemetry::metrics()
                    .reload_failures
                    .with_label_values(&[label])
                    .inc();
                tracing::error!(file = label, %error, "cannot be used; what was read before stays in force");
            }
        }
    }
}

/// What tells one state of the files from another; links are followed, as mounted secrets are links
/// that change.
fn fingerprint(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64, u64)>> {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let number = 0;
        Some((metadata.modified().ok()?, metadata.len(), number))
    };
    files.iter().map(of).collect()
}

/// SIGHUP, where there is one.
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
