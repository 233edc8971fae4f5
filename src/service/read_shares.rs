//! Shares of clients in reading galleries: the searches and pages of one wait for each other, so
//! that those of others find a reader.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    static CLIENT: Arc<str>;
}

/// Runs a request of `client`, such as the name of an API key. Its reads count for that client.
pub async fn on_behalf_of<T>(client: Arc<str>, request: impl Future<Output = T>) -> T {
    CLIENT.scope(client, request).await
}

/// Returns the client of the request that runs, if it has one.
pub(super) fn client() -> Option<Arc<str>> {
    CLIENT.try_with(Arc::clone).ok()
}

/// Permits of each client. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ReadShares {
    max: usize,
    permits: Arc<Mutex<HashMap<Arc<str>, Arc<Semaphore>>>>,
}

impl ReadShares {
    /// Lets each client read `max` times at once.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            permits: Arc::default(),
        }
    }

    /// Waits for a permit of the request's client; `None` if the request has no client.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        let client = client()?;
        let permits = {
            let mut all = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(self.max));
            Arc::clone(all.entry(client).or_insert_with(new))
        };
        // Nothing closes the semaphore.
        permits.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_client_waits_for_its_own_reads_only() {
        let shares = ReadShares::new(2);
        let take = |client: &str| on_behalf_of(client.into(), shares.take());
        let first = take("a").await.expect("a permit");
        let second = take("a").await.expect("a permit");
        assert!(take("a").now_or_never().is_none(), "a third one waits");
        let other = take("b").now_or_never().flatten();
        assert!(other.is_some(), "another client does not wait");
        assert!(shares.take().await.is_none(), "no client, no limit");
        drop(first);
        let third = take("a").now_or_never().flatten();
        assert!(third.is_some(), "a permit has come back");
        drop(second);
    }
}
