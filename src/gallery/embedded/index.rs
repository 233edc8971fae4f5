//! The approximate index of a gallery: a navigable small-world graph (HNSW, Malkov & Yashunin 2016)
//! by `usearch`.
//!
//! The index holds vectors in 8 bits. Candidates are scored again with the full vectors. Keys are
//! serials, so an entry of a deleted or replaced row matches no live row. The index is only a
//! cache: searches scan the rows that it lacks, and it is rebuilt from the rows if its file is
//! missing or damaged.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::{RwLock, RwLockWriteGuard};
use serde::{Deserialize, Serialize};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::{
    attributes::CHUNK_ROWS,
    entry::{encode, entry_len, use_cosine},
    rows::Rows,
};
use crate::error::{Error, Result, ResultExt};

/// Number of neighbors of a node; twice as many on the lowest level.
const CONNECTIVITY: usize = 16;
/// Number of candidates when a row is added.
const EXPANSION_ADD: usize = 128;
/// Minimum number of candidates of a search.
const EXPANSION_SEARCH: usize = 96;
/// Number of rows that a thread adds while searches wait, for some milliseconds.
const STEP: usize = 8;

pub(super) struct ApproximateIndex {
    /// Locked for writing while rows are added: a search in `usearch` reads neighbors without the
    /// locks under which they are added.
    index: RwLock<Index>,
    dim: usize,
    /// Serial up to which every live row is in the index.
    upto: AtomicU64,
    /// Number of threads that add rows.
    threads: usize,
    /// Maximum number of threads that add or search at the same time.
    max_threads: usize,
}

impl std::fmt::Debug for ApproximateIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApproximateIndex")
            .field("upto", &self.upto)
            .finish_non_exhaustive()
    }
}

/// Description of the index file, stored next to it.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    file: String,
    upto: u64,
    crc32: u32,
    settings: String,
}

/// Returns the settings of an index. Indexes with other settings are rebuilt.
fn settings(dim: usize) -> String {
    let version = usearch::version();
    format!("usearch {version} i8 with length {dim} {CONNECTIVITY} {EXPANSION_ADD}")
}

fn failed(error: cxx::Exception) -> Error {
    Error::internal(format!("the approximate index: {}", error.what()))
}

impl ApproximateIndex {
    /// Creates an empty index, which `threads` threads fill during up to `searches` searches.
    pub(super) fn new(dim: usize, threads: usize, searches: usize) -> Result<Self> {
        let options = IndexOptions {
            dimensions: entry_len(dim),
            metric: MetricKind::Cos,
            quantization: ScalarKind::I8,
            connectivity: CONNECTIVITY,
            expansion_add: EXPANSION_ADD,
            expansion_search: EXPANSION_SEARCH,
            multi: false,
        };
        let mut index = Index::new(&options).map_err(failed)?;
        use_cosine(&mut index);
        Ok(Self {
            index: RwLock::new(index),
            dim,
            upto: AtomicU64::new(0),
            threads,
            max_threads: threads + searches,
        })
    }

    pub(super) fn upto(&self) -> u64 {
        self.upto.load(Ordering::Acquire)
    }

    /// Returns the number of entries, including those of dead rows.
    pub(super) fn len(&self) -> usize {
        self.index.read().size()
    }

    /// Adds the rows that the index lacks, until `stop` returns true.
    pub(super) fn catch_up(&self, rows: &Rows, stop: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        for live in &rows.chunks[rows.first_chunk_after(self.upto())..] {
            self.make_room(CHUNK_ROWS)?;
            let chunk = &live.chunk;
            let first = chunk
                .serials
                .partition_point(|&serial| serial <= self.upto());
            let todo: Vec<usize> = live.live.iter().filter(|&row| row >= first).collect();
            for step in todo.chunks(STEP * self.threads) {
                if stop() {
                    return Ok(());
                }
                let growing = self.index.write();
                let index = &*growing;
                let add = |rows_of_thread: &[usize]| -> Result<()> {
                    let mut vector = Vec::new();
                    let mut entry = Vec::new();
                    for &row in rows_of_thread {
                        chunk.vectors.row(row, self.dim, &mut vector);
                        encode(&vector, &mut entry);
                        index.add(chunk.serials[row], &entry).map_err(failed)?;
                    }
                    Ok(())
                };
                std::thread::scope(|scope| {
                    // This thread adds the first part.
                    let (own, others) = step.split_at(step.len().min(STEP));
                    let others: Vec<_> = others
                        .chunks(STEP)
                        .map(|part| scope.spawn(|| add(part)))
                        .collect();
                    let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                        thread.join().unwrap_or_else(|_| {
                            Err(Error::internal("a thread of the index panicked"))
                        })
                    };
                    let done = add(own);
                    others.into_iter().map(join).fold(done, Result::and)
                })?;
                // Waiting searches run before the next step.
                RwLockWriteGuard::unlock_fair(growing);
                if let Some(&last) = step.last() {
                    self.upto.store(chunk.serials[last], Ordering::Release);
                }
            }
            // Rows after the last live row are dead.
            self.upto.fetch_max(live.last_serial(), Ordering::AcqRel);
        }
        Ok(())
    }

    fn make_room(&self, more: usize) -> Result<()> {
        let index = self.index.write();
        let size = index.size();
        let capacity = index.capacity();
        if capacity > 0 && size + more <= capacity {
            return Ok(());
        }
        let capacity = (size + more).max(capacity * 2).max(1 << 14);
        index
            .reserve_capacity_and_threads(capacity, self.max_threads)
            .map_err(failed)
    }

    /// Returns the serials of about the `count` nearest accepted entries, in no particular order.
    pub(super) fn search(
        &self,
        query: &[f32],
        count: usize,
        accept: Option<&dyn Fn(u64) -> bool>,
    ) -> Result<Vec<u64>> {
        let mut entry = Vec::new();
        encode(query, &mut entry);
        let index = self.index.read();
        if index.size() == 0 {
            return Ok(Vec::new());
        }
        let found = match accept {
            Some(accept) => index.filtered_search(&entry, count, accept),
            None => index.search(&entry, count),
        };
        Ok(found.map_err(failed)?.keys)
    }

    /// Saves the index under the number of its gallery and deletes its earlier file. If saving
    /// fails, deletes the new file.
    pub(super) fn save(&self, folder: &Path, gallery: u32) -> Result<()> {
        let upto = self.upto();
        let file = format!("{gallery}-{upto}.usearch");
        let saved = self.write(folder, gallery, upto, &file);
        if saved.is_ok() {
            remove_files(folder, gallery, Some(&file));
        } else {
            // Frees the space on a full disk.
            let _ = fs::remove_file(folder.join(&file));
        }
        saved
    }

    fn write(&self, folder: &Path, gallery: u32, upto: u64, file: &str) -> Result<()> {
        let action = format!("writing the index in {}", folder.display());
        let named = |error| Error::io(&action, error);
        fs::create_dir_all(folder).map_err(named)?;
        let path = folder.join(file);
        let saved = self.index.read().save(&path.to_string_lossy());
        saved.map_err(failed)?;
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(named)?;
        let manifest = Manifest {
            file: file.to_owned(),
            upto,
            crc32: crc32_of(&path).map_err(named)?,
            settings: settings(self.dim),
        };
        let json = serde_json::to_vec(&manifest).internal("encoding an index manifest")?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(named)?;
        std::io::Write::write_all(&mut temporary, &json).map_err(named)?;
        temporary.as_file().sync_all().map_err(named)?;
        temporary
            .persist(manifest_path(folder, gallery))
            .map_err(|error| named(error.error))?;
        Ok(())
    }

    /// Loads a saved index; returns `None` if there is no usable one.
    pub(super) fn load(
        folder: &Path,
        gallery: u32,
        dim: usize,
        threads: usize,
        searches: usize,
    ) -> Option<Self> {
        let manifest: Manifest =
            serde_json::from_slice(&fs::read(manifest_path(folder, gallery)).ok()?).ok()?;
        // Rejects paths to other folders.
        if !manifest.file.starts_with(&format!("{gallery}-")) || manifest.file.contains(['/', '\\'])
        {
            return None;
        }
        let path = folder.join(&manifest.file);
        if manifest.settings != settings(dim) || crc32_of(&path).ok()? != manifest.crc32 {
            tracing::warn!(
                path = %path.display(),
                "the approximate index is of another version or damaged; it is rebuilt"
            );
            return None;
        }
        let loaded = Self::new(dim, threads, searches).ok()?;
        {
            let mut index = loaded.index.write();
            index.load(&path.to_string_lossy()).ok()?;
            if index.dimensions() != entry_len(dim) {
                return None;
            }
            // Loading has reset the distance.
            use_cosine(&mut index);
            index
                .reserve_capacity_and_threads(index.size() + CHUNK_ROWS, loaded.max_threads)
                .ok()?;
            index.change_expansion_add(EXPANSION_ADD);
            index.change_expansion_search(EXPANSION_SEARCH);
        }
        loaded.upto.store(manifest.upto, Ordering::Release);
        Some(loaded)
    }
}

/// Deletes the files of a gallery's index, except `keep`.
pub(super) fn remove_files(folder: &Path, gallery: u32, keep: Option<&str>) {
    if keep.is_none() {
        let _ = fs::remove_file(manifest_path(folder, gallery));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&format!("{gallery}-")) && Some(name.as_ref()) != keep {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Deletes the index files of all galleries except these.
pub(super) fn remove_files_of_others(folder: &Path, galleries: &[u32]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.ends_with(".usearch") || name.ends_with(".json");
        let number = name.split(['-', '.']).next();
        let number = number.and_then(|number| number.parse().ok());
        if ours && number.is_some_and(|number| !galleries.contains(&number)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn manifest_path(folder: &Path, gallery: u32) -> PathBuf {
    folder.join(format!("{gallery}.json"))
}

fn crc32_of(path: &Path) -> std::io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
