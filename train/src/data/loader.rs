//! Loads batches ahead of the trainer on background threads.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{Batch, Dataset, UnreadableImages};

/// Number of batches that are prepared ahead.
const PREFETCH: usize = 2;

/// Makes batches in the background, in their order.
pub struct Loader {
    batches: Receiver<anyhow::Result<Batch>>,
    unreadable: Arc<Mutex<UnreadableImages>>,
    wait_time: Duration,
}

impl Loader {
    /// Starts to make the batches with the given numbers, on `threads` threads.
    pub fn start(
        dataset: Dataset,
        numbers: impl Iterator<Item = usize> + Send + 'static,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("loader-{index}"))
            .build()
            .context("starting the threads of the loader")?;
        let (sender, batches) = sync_channel(PREFETCH);
        let unreadable = Arc::<Mutex<UnreadableImages>>::default();
        let found = Arc::clone(&unreadable);
        std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                for number in numbers {
                    let batch = pool.install(|| dataset.batch(number, &found));
                    let failed = batch.is_err();
                    // Sending fails once the run has stopped.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            })
            .context("starting the thread of the loader")?;
        Ok(Self {
            batches,
            unreadable,
            wait_time: Duration::ZERO,
        })
    }

    /// Waits for the next batch. Fails if no image can be read, or there is no batch left.
    pub fn next_batch(&mut self) -> anyhow::Result<Batch> {
        let started = Instant::now();
        let batch = self.batches.recv().context("the loader has stopped")?;
        self.wait_time += started.elapsed();
        batch
    }

    /// Returns the origins of images that were found to be unreadable since the last call, and why.
    pub fn take_unreadable(&self) -> Vec<(String, String)> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_unreported()
    }

    /// Returns how long [`Loader::next_batch`] waited since the last call.
    pub fn take_wait_time(&mut self) -> Duration {
        std::mem::take(&mut self.wait_time)
    }
}
