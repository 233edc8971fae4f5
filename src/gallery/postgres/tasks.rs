//! Tasks in the background, which end with the store.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;

#[derive(Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits until all tasks have ended, and stops those that take longer than `limit`.
    pub(super) async fn finish(&self, limit: Duration) {
        let mut tasks = std::mem::take(&mut *self.0.lock());
        let all = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(limit, all).await;
        tasks.shutdown().await;
    }

    /// Stops all tasks. Work that is interrupted is repeated later.
    pub(super) async fn shutdown(&self) {
        self.finish(Duration::ZERO).await;
    }
}
