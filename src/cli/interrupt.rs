//! Ctrl-C, SIGTERM and SIGHUP.
//!
//! By default the process exits at once with code 130. A command that has results to save defers
//! the exit: it watches for the signal, saves, and exits by itself. A second signal always exits
//! at once.
//!
//! The exit runs no destructors, because those of ONNX Runtime crash while its threads compute.

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;

use crate::artifacts;

/// Exit code of an interrupted command.
const INTERRUPTED: i32 = 130;

/// Whether a command saves its results before it exits.
static DEFERRED: AtomicBool = AtomicBool::new(false);
/// Cancelled by the first signal.
static SIGNAL: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// Installs the handler of the signals.
pub(super) fn handle_signals() {
    // The handler runs on a thread of its own, not in the signal's context.
    let set = ctrlc::set_handler(|| {
        let is_first = !SIGNAL.is_cancelled();
        SIGNAL.cancel();
        if !(is_first && DEFERRED.load(Ordering::SeqCst)) {
            exit();
        }
    });
    if let Err(error) = set {
        tracing::debug!(%error, "no handler for Ctrl-C");
    }
}

/// Defers the exit until it is dropped.
pub(super) struct Deferred(());

impl Drop for Deferred {
    fn drop(&mut self) {
        DEFERRED.store(false, Ordering::SeqCst);
    }
}

/// Defers the exit: the caller watches [`interrupted`], saves its results, and calls [`exit`].
pub(super) fn defer_exit() -> Deferred {
    DEFERRED.store(true, Ordering::SeqCst);
    Deferred(())
}

/// Resolves at the first signal.
pub(super) async fn interrupted() {
    SIGNAL.cancelled().await;
}

/// Returns whether a signal has arrived.
pub(super) fn is_interrupted() -> bool {
    SIGNAL.is_cancelled()
}

/// Ends the process at once, after unfinished files are removed.
pub(super) fn exit() -> ! {
    // The guard is held to the end: no file is begun or finished meanwhile.
    let _guard = artifacts::remove_unfinished();
    signal_hook::low_level::exit(INTERRUPTED)
}
