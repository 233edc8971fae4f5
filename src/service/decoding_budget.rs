//! A budget of memory for images that are being decoded.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    telemetry,
};

/// Bytes of a permit.
const UNIT: u64 = 1 << 16;

/// A budget of memory. Images get their share in the order in which they ask, so that small images
/// do not keep a large one waiting. Clones share the budget.
#[derive(Debug, Clone)]
pub(super) struct DecodingBudget {
    permits: Arc<Semaphore>,
    bytes: u64,
    /// Maximum time that an image waits.
    max_wait: Option<Duration>,
}

impl DecodingBudget {
    /// Creates a budget of `bytes`. Images wait as long as it takes.
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(units(bytes) as usize)),
            bytes,
            max_wait: None,
        }
    }

    /// Sets the maximum time that an image waits.
    pub(super) fn with_max_wait(self, max_wait: Duration) -> Self {
        Self {
            max_wait: Some(max_wait),
            ..self
        }
    }

    /// Takes `bytes` out of the budget until the permit is dropped.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] for an image that takes more than the budget, [`Kind::Overloaded`] if
    /// others had its share for too long.
    pub(super) async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        if bytes > self.bytes {
            let limit = self.bytes;
            let detail = format!(
                "decoding the image takes {bytes} bytes of memory, and the limit is {limit}; send \
                 it smaller, or with 8 bits a sample"
            );
            return Err(self.limited(Kind::TooLarge, detail));
        }
        let taking = Arc::clone(&self.permits).acquire_many_owned(units(bytes));
        let taken = match self.max_wait {
            Some(max_wait) => timeout(max_wait, taking)
                .await
                .map_err(|_| self.used_up())?,
            None => taking.await,
        };
        taken.internal("memory for decoding")
    }

    fn used_up(&self) -> Error {
        telemetry::metrics().count_rejection("decoding");
        let detail = format!(
            "the server is decoding images in all of its {} bytes for them; retry in a moment",
            self.bytes
        );
        self.limited(Kind::Overloaded, detail)
    }

    fn limited(&self, kind: Kind, detail: String) -> Error {
        let (name, flag) = ("max_decoding_bytes", "--max-decoding-bytes");
        Error::new(kind, detail).with_limit(name, self.bytes, flag)
    }
}

/// Returns the number of permits for `bytes`, at least one.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn images_wait_for_their_share_in_order() {
        let budget = DecodingBudget::new(10 * MIB).with_max_wait(Duration::from_millis(50));
        let first = budget.take(7 * MIB).await.expect("room");
        let large = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(10 * MIB).await }
        });
        tokio::task::yield_now().await;
        // A small image would fit, and waits behind the large one.
        let error = budget
            .take(MIB)
            .await
            .expect_err("the large image is first");
        assert_eq!(error.kind(), Kind::Overloaded);
        let limit = error.limit().expect("a limit");
        assert_eq!(
            (limit.flag, limit.value),
            ("--max-decoding-bytes", 10 * MIB)
        );
        assert_eq!(
            large.await.unwrap().expect_err("no room").kind(),
            Kind::Overloaded
        );
        let small = budget
            .take(3 * MIB)
            .await
            .expect("the large image has left");
        drop(small);
        drop(first);
        let error = budget.take(10 * MIB + 1).await.expect_err("too large");
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(error.limit().expect("a limit").value, 10 * MIB);
        let all = budget.take(10 * MIB).await.expect("everything is back");
        drop(all);
    }
}
