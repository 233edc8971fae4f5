//! The file of an index: its manifest in JSON, and next to it all numbers.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytemuck::Pod;
use ndarray::Array2;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{
    super::vectors::{BitCodes, RawCodes},
    approximate::{ApproximateIndex, NEIGHBORS},
    lists::{Centers, List},
};
use crate::error::{Error, Result, ResultExt};

/// Version of the format, and the order of the bytes of a number. Indexes of others are made again.
const FORMAT: &str = if cfg!(target_endian = "little") {
    "lists of bits 1"
} else {
    "lists of bits 1, big-endian"
};

/// Description of the index file, stored next to it.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    file: String,
    crc32: u32,
    dim: usize,
    /// Number of rows of each list.
    lists: Vec<usize>,
    probes: [usize; NEIGHBORS.len()],
    upto: u64,
    made_for: usize,
}

impl ApproximateIndex {
    /// Saves the index under the number of its gallery and deletes its earlier file. If saving
    /// fails, deletes the new file.
    pub(in super::super) fn save(&self, folder: &Path, gallery: u32) -> Result<()> {
        let upto = self.upto();
        let file = format!("{gallery}-{upto}.lists");
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
        let mut output = Output {
            file: BufWriter::new(File::create(folder.join(file)).map_err(named)?),
            crc32: crc32fast::Hasher::new(),
        };
        let mut counts = Vec::new();
        {
            let lists = self.lists.read();
            for array in [&self.centers.directions, &self.centers.means] {
                let values: Vec<f32> = array.iter().copied().collect();
                output.put(&values).map_err(named)?;
            }
            for List { serials, codes } in &*lists {
                let raw = codes.raw();
                counts.push(serials.len());
                output.put(serials).map_err(named)?;
                output.put(raw.signs).map_err(named)?;
                output.put(raw.factors).map_err(named)?;
                output.put(raw.offsets).map_err(named)?;
            }
        }
        let Output { file: data, crc32 } = output;
        data.into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(named)?;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            file: file.to_owned(),
            crc32: crc32.finalize(),
            dim: self.centers.directions.ncols(),
            lists: counts,
            probes: self
                .probes
                .each_ref()
                .map(|probes| probes.load(Ordering::Relaxed)),
            upto,
            made_for: self.made_for,
        };
        let json = serde_json::to_vec(&manifest).internal("encoding an index manifest")?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(named)?;
        temporary.write_all(&json).map_err(named)?;
        temporary.as_file().sync_all().map_err(named)?;
        temporary
            .persist(manifest_path(folder, gallery))
            .map_err(|error| named(error.error))?;
        Ok(())
    }

    /// Loads a saved index; returns `None` if there is no usable one.
    pub(in super::super) fn load(folder: &Path, gallery: u32, dim: usize) -> Option<Self> {
        let manifest = fs::read(manifest_path(folder, gallery)).ok()?;
        let loaded = serde_json::from_slice(&manifest)
            .ok()
            .and_then(|manifest: Manifest| {
                let expected = manifest.format == FORMAT && manifest.dim == dim;
                // Rejects paths to other folders.
                let own = manifest.file.starts_with(&format!("{gallery}-"));
                let own = own && !manifest.file.contains(['/', '\\']);
                let data = fs::read(folder.join(&manifest.file).as_path());
                let data = data.ok().filter(|_| expected && own)?;
                let whole = crc32fast::hash(&data) == manifest.crc32;
                whole.then(|| Self::decode(&manifest, &data))?
            });
        if loaded.is_none() {
            let folder = folder.display();
            tracing::warn!(
                %folder,
                gallery,
                "the approximate index is of another version or damaged; it is made again"
            );
        }
        loaded
    }

    fn decode(manifest: &Manifest, data: &[u8]) -> Option<Self> {
        let (dim, count) = (manifest.dim, manifest.lists.len());
        let mut input = Input(data);
        let mut array = || Array2::from_shape_vec((count, dim), input.take(count * dim)?).ok();
        let centers = Centers::from_parts(array()?, array()?);
        let mut lists = Vec::with_capacity(count);
        for &rows in &manifest.lists {
            let (pairs, blocks) = BitCodes::sizes(dim, rows);
            let serials = input.take(rows)?;
            let signs: Vec<_> = input.take(blocks.checked_mul(pairs)?)?;
            let (factors, offsets): (Vec<_>, Vec<_>) = (input.take(blocks)?, input.take(blocks)?);
            let raw = RawCodes {
                signs: &signs,
                factors: &factors,
                offsets: &offsets,
            };
            let codes = BitCodes::from_raw(dim, rows, &raw)?;
            lists.push(List { serials, codes });
        }
        (input.0.is_empty() && count > 0).then(|| Self {
            centers,
            lists: RwLock::new(lists),
            entries: AtomicUsize::new(manifest.lists.iter().sum()),
            probes: manifest.probes.map(AtomicUsize::new),
            upto: AtomicU64::new(manifest.upto),
            made_for: manifest.made_for,
        })
    }
}

/// The file that is written, with the checksum of what it holds.
struct Output {
    file: BufWriter<File>,
    crc32: crc32fast::Hasher,
}

impl Output {
    fn put<T: Pod>(&mut self, values: &[T]) -> std::io::Result<()> {
        let bytes = bytemuck::cast_slice(values);
        self.crc32.update(bytes);
        self.file.write_all(bytes)
    }
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// Takes `count` numbers, or returns `None` if there are fewer.
    fn take<T: Pod>(&mut self, count: usize) -> Option<Vec<T>> {
        let bytes = count.checked_mul(size_of::<T>())?;
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(bytemuck::pod_collect_to_vec(taken))
    }
}
/// Deletes the files of a gallery's index, except `keep`.
pub(in super::super) fn remove_files(folder: &Path, gallery: u32, keep: Option<&str>) {
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
pub(in super::super) fn remove_files_of_others(folder: &Path, galleries: &[u32]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours =
            name.ends_with(".lists") || name.ends_with(".usearch") || name.ends_with(".json");
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
