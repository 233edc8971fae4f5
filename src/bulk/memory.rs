//! The memory for files that are read ahead.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Result, ResultExt};

/// Assumed size of a file of unknown size, in bytes.
const UNKNOWN_SIZE: u64 = 1 << 20;
/// Unit of the memory that is counted, so that it fits the semaphore.
const UNIT: u64 = 1 << 10;

/// The memory for reading ahead.
#[derive(Clone)]
pub(super) struct Memory {
    permits: Arc<Semaphore>,
    units: u32,
}

impl Memory {
    /// Memory of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        Self {
            permits: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Takes the memory of a file once it is free; all of it for a larger file.
    pub(super) async fn take(self, bytes: Option<u64>) -> Result<OwnedSemaphorePermit> {
        let units = bytes.unwrap_or(UNKNOWN_SIZE).div_ceil(UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.units);
        let permit = self.permits.acquire_many_owned(units).await;
        permit.internal("memory for reading ahead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_too_large_takes_all_and_waits_for_it() {
        let memory = Memory::new(10 << 10);
        let small = memory.clone().take(Some(1)).await.expect("memory");
        assert_eq!(small.num_permits(), 1);
        let mut large = Box::pin(memory.clone().take(Some(1 << 40)));
        assert!(futures_util::poll!(&mut large).is_pending());
        drop(small);
        assert_eq!(large.await.expect("memory").num_permits(), 10);
    }
}
