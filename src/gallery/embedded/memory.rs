//! The part of the store that is in memory: the rows of each gallery and its index.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Condvar, Mutex};

use super::{
    attributes::CHUNK_ROWS,
    codec::{GalleryRow, ItemRecord},
    environment::Environment,
    index::{self, ApproximateIndex},
    rows::{NewRow, Rows},
    vectors::BitCoder,
    view::View,
};
use crate::{
    error::Result,
    gallery::{GalleryName, VectorFormat, item::check_vector},
};

/// Number of vectors from which the center of a gallery in one bit a value is made.
const SAMPLE: usize = 4096;

/// A gallery as searches see it.
#[derive(Debug)]
pub(super) struct LiveGallery {
    pub(super) number: u32,
    /// Replaced by the writer after each commit, before it replies.
    pub(super) rows: ArcSwap<Rows>,
    pub(super) index: ArcSwapOption<ApproximateIndex>,
    /// Serial up to which the index is saved on disk.
    pub(super) saved_upto: AtomicU64,
    removed: AtomicBool,
}

impl LiveGallery {
    pub(super) fn new(row: &GalleryRow) -> Self {
        Self {
            number: row.number,
            rows: ArcSwap::from_pointee(Rows::new(row.next_serial, row.binding.dim, row.vectors)),
            index: ArcSwapOption::empty(),
            saved_upto: AtomicU64::new(0),
            removed: AtomicBool::new(false),
        }
    }

    /// Marks the gallery as deleted, so that background work on it stops.
    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
}

pub(super) type Galleries = BTreeMap<GalleryName, Arc<LiveGallery>>;

/// All galleries, and the settings of their searches.
#[derive(Debug)]
pub(super) struct Memory {
    galleries: ArcSwap<Galleries>,
    /// Number of commits that were published.
    publications: Mutex<u64>,
    published: Condvar,
    pub(super) exact_up_to: usize,
    pub(super) index_folder: PathBuf,
    pub(super) index_threads: usize,
}

impl Memory {
    /// Reads all vectors of the folder.
    pub(super) fn load(
        environment: &Environment,
        exact_up_to: usize,
        cores: usize,
    ) -> Result<Self> {
        let mut memory = Self {
            galleries: ArcSwap::default(),
            publications: Mutex::new(0),
            published: Condvar::new(),
            exact_up_to,
            index_folder: environment.folder().join("index"),
            index_threads: cores.div_ceil(2),
        };
        let mut galleries = Galleries::new();
        let txn = environment.read()?;
        for (name, row) in View::new(environment, &txn).galleries()? {
            match row {
                Ok(row) => {
                    galleries.insert(name, Arc::new(memory.load_gallery(environment, &row)?));
                }
                Err(error) => tracing::error!(%error, "a gallery cannot be used"),
            }
        }
        let numbers: Vec<u32> = galleries.values().map(|gallery| gallery.number).collect();
        index::remove_files_of_others(&memory.index_folder, &numbers);
        memory.galleries = ArcSwap::from_pointee(galleries);
        Ok(memory)
    }

    fn load_gallery(&self, environment: &Environment, row: &GalleryRow) -> Result<LiveGallery> {
        let gallery = LiveGallery::new(row);
        let rows = read_rows(environment, row)?;
        let index = if rows.live > self.exact_up_to {
            ApproximateIndex::load(&self.index_folder, row.number, row.binding.dim)
                // A backup of the database alone, once restored, is older than the index.
                .filter(|index| index.upto() < row.next_serial)
        } else {
            None
        };
        match index {
            Some(index) => {
                gallery.saved_upto.store(index.upto(), Ordering::Relaxed);
                gallery.index.store(Some(Arc::new(index)));
            }
            None => index::remove_files(&self.index_folder, row.number, None),
        }
        gallery.rows.store(Arc::new(rows));
        Ok(gallery)
    }

    pub(super) fn galleries(&self) -> Arc<Galleries> {
        self.galleries.load_full()
    }

    pub(super) fn gallery(&self, name: &GalleryName) -> Option<Arc<LiveGallery>> {
        self.galleries.load().get(name).cloned()
    }

    /// Makes a commit visible. Only the writer calls this.
    pub(super) fn publish(&self, galleries: Galleries) {
        self.galleries.store(Arc::new(galleries));
        *self.publications.lock() += 1;
        self.published.notify_all();
    }

    pub(super) fn publications(&self) -> u64 {
        *self.publications.lock()
    }

    /// Waits until more than `seen` commits were published, and returns whether they were by the
    /// deadline.
    pub(super) fn wait_for_publication(&self, seen: u64, deadline: Instant) -> bool {
        let mut publications = self.publications.lock();
        let waited = self.published.wait_while_until(
            &mut publications,
            |publications| *publications <= seen,
            deadline,
        );
        !waited.timed_out()
    }
}

/// Reads the rows of a gallery. Rows are sorted by serial, which is the order of writes; the table
/// is sorted by place. Damaged items are left out, so that the others can be found;
/// [`super::check`] reports them. So are items whose numbers are beyond those of the gallery:
/// later writes would get lower ones.
fn read_rows(environment: &Environment, row: &GalleryRow) -> Result<Rows> {
    let txn = environment.read()?;
    let view = View::new(environment, &txn);
    let mut order = Vec::new();
    for entry in view.records(row.number, 0)? {
        let (place, record) = entry?;
        match ItemRecord::decode(record).and_then(|record| record.check(row, place)) {
            Ok(record) => order.push((record.serial, place)),
            Err(error) => {
                tracing::error!(
                    %error,
                    gallery = row.number,
                    "an item cannot be read; see `gallery check`"
                );
            }
        }
    }
    order.sort_unstable();
    order.dedup_by_key(|&mut (serial, _)| serial);
    let coder = match row.vectors == VectorFormat::B1 && order.len() >= CHUNK_ROWS {
        true => Some(coder(view, row, &order)?),
        false => None,
    };
    let rows = Rows::new(row.next_serial, row.binding.dim, row.vectors);
    let mut rows = rows.with_coder(coder);
    for batch in order.chunks(CHUNK_ROWS) {
        let mut read = Vec::with_capacity(batch.len());
        for &(serial, place) in batch {
            let Some(ItemRecord { item, .. }) = view.record(row.number, place)? else {
                continue;
            };
            let vector = view.vector(row.number, place, row.binding.dim)?;
            if let Err(error) = check_vector(&vector, row.binding.dim) {
                tracing::error!(
                    %error,
                    place,
                    gallery = row.number,
                    "the vector of an item is damaged; see `gallery check`"
                );
                continue;
            }
            read.push(NewRow {
                serial,
                place,
                vector,
                label: item.label,
                metadata: item.metadata,
            });
        }
        rows = rows.after(row.next_serial, &read, &[]);
    }
    Ok(rows)
}

/// Makes the coder of a gallery in one bit a value. Its center is the mean of vectors from all
/// parts of the gallery.
fn coder(view: View<'_>, row: &GalleryRow, order: &[(u64, u64)]) -> Result<BitCoder> {
    let dim = row.binding.dim;
    let sampled = order.iter().step_by(order.len().div_ceil(SAMPLE).max(1));
    let vectors = sampled.map(|&(_, place)| view.vector(row.number, place, dim));
    let vectors = vectors.collect::<Result<Vec<_>>>()?;
    let whole = vectors
        .iter()
        .filter(|vector| check_vector(vector, dim).is_ok());
    Ok(BitCoder::of_mean(whole.map(Vec::as_slice), dim))
}
