//! Batches, made ahead of the trainer by threads of their own.
//!
//! What a batch holds depends on the seed and its number alone, not on the threads, so that a run
//! can be resumed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use rayon::prelude::*;

use super::{CropConfig, Views, pixels::read_image};
use crate::method::Batch;

/// Batches that are ready before they are asked for.
const AHEAD: usize = 2;

/// What is trained on, and how it is cut into batches.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// The image files, in a fixed order.
    pub paths: Vec<PathBuf>,
    /// Their views.
    pub crops: CropConfig,
    /// Images of a batch.
    pub batch: usize,
    /// Decides the order of the images and their views.
    pub seed: u64,
}

/// Images that could not be read; each is tried once, and another stands in for it.
#[derive(Debug, Default)]
pub struct Unreadable {
    known: BTreeSet<PathBuf>,
    /// Those that nobody has been told of, and why.
    news: Vec<(PathBuf, String)>,
}

impl Pictures {
    /// Whole batches of an epoch; the images that are left over are others in each.
    pub fn batches_per_epoch(&self) -> usize {
        self.paths.len() / self.batch
    }

    /// The batch of a number, counted over all epochs.
    ///
    /// # Errors
    /// If none of the images can be read.
    pub fn batch(&self, number: usize, unreadable: &Mutex<Unreadable>) -> anyhow::Result<Batch> {
        let epoch = number / self.batches_per_epoch();
        let order = self.order(epoch);
        let first = number % self.batches_per_epoch() * self.batch;
        let views: Vec<Views> = (first..first + self.batch)
            .into_par_iter()
            .map(|place| self.views(&order, place, epoch, unreadable))
            .collect::<anyhow::Result<_>>()?;
        let global = (0..2).flat_map(|view| {
            views
                .iter()
                .flat_map(move |views| views.global[view].iter().copied())
        });
        let local = (0..self.crops.local_count).flat_map(|view| {
            views
                .iter()
                .flat_map(move |views| views.local[view].iter().copied())
        });
        Ok(Batch {
            images: self.batch,
            global: global.collect(),
            global_side: self.crops.global_size,
            local: local.collect(),
            local_side: self.crops.local_size,
            masks: None,
        })
    }

    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.paths.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(mixed([
            self.seed,
            epoch as u64,
            u64::MAX,
        ])));
        order
    }

    /// The views of the image at a place of an epoch's order, or of the next that can be read.
    fn views(
        &self,
        order: &[usize],
        place: usize,
        epoch: usize,
        unreadable: &Mutex<Unreadable>,
    ) -> anyhow::Result<Views> {
        let known = || unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        for offset in 0..order.len() {
            let picture = order[(place + offset) % order.len()];
            let path = &self.paths[picture];
            if known().known.contains(path) {
                continue;
            }
            match read_image(path) {
                Ok(image) => {
                    let seed = mixed([self.seed, epoch as u64, place as u64]);
                    return Ok(self.crops.views(&image, seed));
                }
                Err(error) => known().add(path, &error.to_string()),
            }
        }
        bail!("none of the {} images can be read", order.len())
    }
}

impl Unreadable {
    fn add(&mut self, path: &Path, error: &str) {
        if self.known.insert(path.to_owned()) {
            self.news.push((path.to_owned(), error.to_owned()));
        }
    }

    /// Those that were found since this was last asked, and why they cannot be read.
    pub fn take_news(&mut self) -> Vec<(PathBuf, String)> {
        std::mem::take(&mut self.news)
    }
}

/// A number that depends on all bits of several (SplitMix64's finalizer after each).
pub(crate) fn mixed(parts: [u64; 3]) -> u64 {
    parts
        .into_iter()
        .fold(0x9e37_79b9_7f4a_7c15, |state: u64, part| {
            let x = state.wrapping_add(part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        })
}

/// Makes batches in the background, in their order.
pub struct Loader {
    batches: Receiver<anyhow::Result<Batch>>,
    unreadable: Arc<Mutex<Unreadable>>,
    waited: Duration,
}

impl Loader {
    /// Makes the batches of these numbers, on `threads` threads.
    ///
    /// # Errors
    /// If the threads cannot be had.
    pub fn start(
        pictures: Pictures,
        numbers: impl Iterator<Item = usize> + Send + 'static,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("loader-{index}"))
            .build()
            .context("threads for the loader")?;
        let (sender, batches) = sync_channel(AHEAD);
        let unreadable = Arc::<Mutex<Unreadable>>::default();
        let known = Arc::clone(&unreadable);
        let make = move || {
            for number in numbers {
                let batch = pool.install(|| pictures.batch(number, &known));
                let failed = batch.is_err();
                // Nobody listens any more: the run has stopped.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(make)
            .context("a thread for the loader")?;
        Ok(Self {
            batches,
            unreadable,
            waited: Duration::ZERO,
        })
    }

    /// The next batch.
    ///
    /// # Errors
    /// If no image can be read, or there is no batch left.
    pub fn next_batch(&mut self) -> anyhow::Result<Batch> {
        let asked = Instant::now();
        let batch = self.batches.recv().context("the loader has stopped")?;
        self.waited += asked.elapsed();
        batch
    }

    /// Images that were found to be unreadable since this was last asked, and why.
    pub fn newly_unreadable(&self) -> Vec<(PathBuf, String)> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_news()
    }

    /// How long [`Loader::next_batch`] had to wait since this was last asked.
    pub fn waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}
