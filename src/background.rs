//! Threads that yield the processor to others: work that must not slow down requests that need the
//! model.

use std::{
    io,
    thread::{Builder, JoinHandle},
};

/// Priority of a thread, below that of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// For requests that read much. Under full load it gets a tenth of a core.
    Low,
    /// For work that takes minutes. Under full load it gets next to nothing.
    Lowest,
}

/// Runs work on its own thread with a priority.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    priority: Priority,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        lower(priority);
        work()
    })
}

/// Lowers the priority of this thread. Other systems than Linux would lower that of the whole
/// process, so nothing is done there.
#[cfg(target_os = "linux")]
fn lower(priority: Priority) {
    let nice = match priority {
        Priority::Low => 10,
        Priority::Lowest => 19,
    };
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::warn!(%error, "cannot lower the priority of a thread");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower(_: Priority) {}
