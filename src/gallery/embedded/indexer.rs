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

use ndarray::Array2;

use super::{
    environment::Environment,
    index::{self, ApproximateIndex},
    memory::{LiveGallery, Memory},
    rows::{Chunk, Rows},
    view::View,
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
    pub(super) fn start(environment: Arc<Environment>, memory: Arc<Memory>) -> Result<Self> {
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let work = IndexerThread {
            environment,
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
    environment: Arc<Environment>,
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
        // The old index is used until the new one is complete.
        let index = match gallery.index.load_full() {
            Some(index) if !index.is_outgrown(rows.live) => index,
            _ => {
                let Some(new) = self.build(gallery, &rows)? else {
                    return Ok(());
                };
                let new = Arc::new(new);
                gallery.index.store(Some(Arc::clone(&new)));
                gallery.saved_upto.store(0, Ordering::Relaxed);
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

    /// Makes an index. Returns `None` if the store is closed or the gallery deleted meanwhile.
    fn build(&self, gallery: &LiveGallery, rows: &Rows) -> Result<Option<ApproximateIndex>> {
        let started = Instant::now();
        let read = |chunk: &Chunk, of: &[usize]| self.read(gallery, rows, chunk, of);
        let stop = || self.stopping() || gallery.is_removed();
        let index = ApproximateIndex::build(rows, self.memory.index_threads, &read, &stop)?;
        if index.is_some() {
            tracing::info!(
                gallery = gallery.number,
                rows = rows.live,
                seconds = started.elapsed().as_secs(),
                "made an approximate index"
            );
        }
        Ok(index)
    }

    fn catch_up(&self, gallery: &LiveGallery, rows: &Rows, index: &ApproximateIndex) -> Result<()> {
        if rows.last_serial() <= index.upto() || self.stopping() {
            return Ok(());
        }
        let read = |chunk: &Chunk, of: &[usize]| self.read(gallery, rows, chunk, of);
        let stop = || self.stopping() || gallery.is_removed();
        index.catch_up(rows, self.memory.index_threads, &read, &stop)
    }

    /// Reads rows of a chunk from memory, or from the disk if memory has only codes. There, a row
    /// that was replaced or deleted since is another or missing; it is dead in newer rows.
    fn read(
        &self,
        gallery: &LiveGallery,
        rows: &Rows,
        chunk: &Chunk,
        of: &[usize],
    ) -> Result<(Vec<u64>, Array2<f32>)> {
        let mut serials = Vec::with_capacity(of.len());
        let mut vectors = Vec::with_capacity(of.len() * rows.dim);
        let txn = self.environment.read()?;
        let view = View::new(&self.environment, &txn);
        let mut vector = Vec::new();
        for &row in of {
            if !chunk.vectors.copy_row(row, rows.dim, &mut vector) {
                vector = view.vector(gallery.number, chunk.places[row], rows.dim)?;
            }
            if vector.len() == rows.dim {
                serials.push(chunk.serials[row]);
                vectors.extend_from_slice(&vector);
            }
        }
        let vectors = Array2::from_shape_vec((serials.len(), rows.dim), vectors);
        Ok((serials, vectors.internal("reading vectors")?))
    }
}
