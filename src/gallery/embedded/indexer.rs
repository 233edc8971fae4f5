//! The background thread that keeps approximate indexes up to date.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    index::{self, ApproximateIndex},
    memory::{LiveGallery, Memory},
    rows::Rows,
};
use crate::error::{Result, ResultExt};

/// Interval between saves of indexes that changed a lot.
const SAVE_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Indexer {
    wake: SyncSender<()>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Indexer {
    pub(super) fn start(memory: Arc<Memory>) -> Result<Self> {
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let work = IndexerThread {
            memory,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("indexer".to_owned())
            .spawn(move || work.run(&woken))
            .internal("cannot start the indexer's thread")?;
        Ok(Self {
            wake,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn wake(&self) {
        // Fails if the thread is already notified, or has panicked. The panic hook has logged that,
        // and searches scan what the index lacks.
        let _ = self.wake.try_send(());
    }

    /// Saves the indexes and stops the thread. Blocks.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        let _ = self.thread.lock().take().map(JoinHandle::join);
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct IndexerThread {
    memory: Arc<Memory>,
    stop: Arc<AtomicBool>,
}

impl IndexerThread {
    fn run(&self, woken: &Receiver<()>) {
        let mut last_save = Instant::now();
        loop {
            let saving = self.stopping() || last_save.elapsed() >= SAVE_EVERY;
            for gallery in self.memory.galleries().values() {
                if let Err(error) = self.update(gallery, saving) {
                    tracing::warn!(%error, "an approximate index could not be brought up to date");
                }
            }
            if saving {
                last_save = Instant::now();
            }
            if self.stopping() {
                return;
            }
            match woken.recv_timeout(SAVE_EVERY) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn update(&self, gallery: &LiveGallery, saving: bool) -> Result<()> {
        let rows = gallery.rows.load_full();
        if rows.live <= self.memory.exact_up_to {
            // A gallery that shrank far below the limit no longer needs its index.
            if rows.live < self.memory.exact_up_to / 2 && gallery.index.swap(None).is_some() {
                index::remove_files(&self.memory.index_folder, gallery.number, None);
            }
            return Ok(());
        }
        let index = match gallery.index.load_full() {
            // Searches waste time on dead entries. The old index is used until the new one is
            // complete.
            Some(old) if old.len() > 2 * rows.live + rows.live / 2 => {
                let new = self.new_index(&rows)?;
                self.catch_up(gallery, &rows, &new)?;
                if self.stopping() {
                    return Ok(());
                }
                gallery.index.store(Some(Arc::clone(&new)));
                new
            }
            Some(index) => index,
            None => {
                let new = self.new_index(&rows)?;
                gallery.index.store(Some(Arc::clone(&new)));
                new
            }
        };
        self.catch_up(gallery, &rows, &index)?;
        let unsaved = index
            .upto()
            .saturating_sub(gallery.saved_upto.load(Ordering::Relaxed));
        let much = unsaved as usize > rows.live / 10;
        if unsaved > 0
            && !gallery.is_removed()
            && (self.stopping() || much || (saving && unsaved > 1000))
        {
            index.save(&self.memory.index_folder, gallery.number)?;
            gallery.saved_upto.store(index.upto(), Ordering::Relaxed);
            // The gallery was deleted meanwhile, and its earlier files were deleted with it.
            if gallery.is_removed() {
                index::remove_files(&self.memory.index_folder, gallery.number, None);
            }
        }
        Ok(())
    }

    fn new_index(&self, rows: &Rows) -> Result<Arc<ApproximateIndex>> {
        let memory = &self.memory;
        ApproximateIndex::new(rows.dim, memory.index_threads, memory.searches).map(Arc::new)
    }

    fn catch_up(&self, gallery: &LiveGallery, rows: &Rows, index: &ApproximateIndex) -> Result<()> {
        if rows.last_serial() <= index.upto() || self.stopping() {
            return Ok(());
        }
        let started = Instant::now();
        let before = index.len();
        index.catch_up(rows, &|| self.stopping() || gallery.is_removed())?;
        let added = index.len() - before;
        if added > 10_000 {
            tracing::info!(
                gallery = gallery.number,
                added,
                seconds = started.elapsed().as_secs(),
                "the approximate index is up to date"
            );
        }
        Ok(())
    }
}
