//! The tokio runtime of a command.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

pub(super) fn async_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// Runs `work` to its end on a new runtime.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    async_runtime()?.block_on(work)
}
