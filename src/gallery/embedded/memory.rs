//! What the embedded store has in memory: the rows of each gallery and its index.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    attributes::CHUNK_ROWS,
    codec::{self, GalleryRow, Record},
    environment::Environment,
    index::{self, ApproximateIndex},
    rows::{NewRow, Rows},
};
use crate::{
    error::{Error, Kind, Result},
    gallery::GalleryName,
};

/// A gallery as searches see it.
#[derive(Debug)]
pub(super) struct LiveGallery {
    pub(super) number: u32,
    /// Published by the writer after each commit, before it answers.
    pub(super) rows: ArcSwap<Rows>,
    pub(super) index: ArcSwapOption<ApproximateIndex>,
    /// What of the index is on disk.
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

    /// Nothing needs to be done for it any more.
    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
}

/// Galleries by name.
pub(super) type Galleries = BTreeMap<GalleryName, Arc<LiveGallery>>;

/// All galleries, and how they are searched.
#[derive(Debug)]
pub(super) struct Memory {
    galleries: ArcSwap<Galleries>,
    pub(super) exact_up_to: usize,
    pub(super) index_folder: PathBuf,
    pub(super) index_threads: usize,
    /// Searches that may run together.
    pub(super) searches: usize,
}

impl Memory {
    /// Reads all vectors of the folder.
    pub(super) fn load(
        environment: &Environment,
        exact_up_to: usize,
        cores: usize,
    ) -> Result<Self> {
        let index_folder = environment.folder().join("index");
        let index_threads = cores.div_ceil(2);
        let mut galleries = Galleries::new();
        for (name, row) in gallery_rows(environment)? {
            let gallery = LiveGallery::new(&row);
            let rows = read_rows(environment, &row)?;
            let load = || {
                ApproximateIndex::load(
                    &index_folder,
                    row.number,
                    row.binding.dim,
                    index_threads,
                    cores,
                )
            };
            // One from the future is of a folder that was put back since.
            let index = if rows.live > exact_up_to {
                load().filter(|index| index.upto() < row.next_serial)
            } else {
                None
            };
            match index {
                Some(index) => {
                    gallery.saved_upto.store(index.upto(), Ordering::Relaxed);
                    gallery.index.store(Some(Arc::new(index)));
                }
                None => index::remove_files(&index_folder, row.number, None),
            }
            gallery.rows.store(Arc::new(rows));
            galleries.insert(name, Arc::new(gallery));
        }
        let numbers: Vec<u32> = galleries.values().map(|gallery| gallery.number).collect();
        index::remove_files_of_others(&index_folder, &numbers);
        let galleries = ArcSwap::from_pointee(galleries);
        Ok(Self {
            galleries,
            exact_up_to,
            index_folder,
            index_threads,
            searches: cores,
        })
    }

    pub(super) fn galleries(&self) -> Arc<Galleries> {
        self.galleries.load_full()
    }

    pub(super) fn gallery(&self, name: &GalleryName) -> Result<Arc<LiveGallery>> {
        self.galleries
            .load()
            .get(name)
            .cloned()
            .ok_or_else(|| no_gallery(name))
    }

    /// For the writer alone.
    pub(super) fn publish(&self, galleries: Galleries) {
        self.galleries.store(Arc::new(galleries));
    }
}

pub(super) fn no_gallery(name: &GalleryName) -> Error {
    Error::new(
        Kind::NotFound,
        format!("there is no gallery `{name}`; see GET /v1/galleries"),
    )
}

/// The galleries of the folder.
pub(super) fn gallery_rows(environment: &Environment) -> Result<Vec<(GalleryName, GalleryRow)>> {
    let txn = environment.read()?;
    let entries = environment
        .tables
        .galleries
        .iter(&txn)
        .map_err(|error| environment.failed(error))?;
    let mut found = Vec::new();
    for entry in entries {
        let (key, value) = entry.map_err(|error| environment.failed(error))?;
        let name = GalleryName::new(String::from_utf8_lossy(key))?;
        let row = GalleryRow::decode(&name, value)?;
        found.push((name, row));
    }
    Ok(found)
}

/// Rows are sorted by their serial, which is the order of their writing, and come from the table in
/// that of their place. An item that is damaged is left out, as the others should be found;
/// [`super::reader::check`] names it.
fn read_rows(environment: &Environment, row: &GalleryRow) -> Result<Rows> {
    let failed = |error| environment.failed(error);
    let txn = environment.read()?;
    let mut order = Vec::new();
    for entry in environment
        .tables
        .records
        .prefix_iter(&txn, &codec::prefix(row.number))
        .map_err(failed)?
    {
        let (key, value) = entry.map_err(failed)?;
        match Record::decode(value) {
            Ok(record) => order.push((record.serial, codec::place_of(key)?)),
            Err(error) => {
                tracing::error!(%error, gallery = row.number, "an item cannot be read; see `gallery check`");
            }
        }
    }
    order.sort_unstable();
    let mut rows = Rows::new(row.next_serial, row.binding.dim, row.vectors);
    for batch in order.chunks(CHUNK_ROWS) {
        let mut read = Vec::with_capacity(batch.len());
        for &(serial, place) in batch {
            let key = codec::place_key(row.number, place);
            let record = environment
                .tables
                .records
                .get(&txn, &key)
                .map_err(failed)?
                .unwrap_or_default();
            let vector = environment
                .tables
                .vectors
                .get(&txn, &key)
                .map_err(failed)?
                .unwrap_or_default();
            let vector = codec::decode_floats(vector, row.vectors);
            if vector.len() != row.binding.dim {
                tracing::error!(
                    place,
                    gallery = row.number,
                    "an item has no vector; see `gallery check`"
                );
                continue;
            }
            let item = Record::decode(record)?.item;
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
