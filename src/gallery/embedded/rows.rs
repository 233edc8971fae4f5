//! The vectors of a gallery in memory, as they are at one moment.
//!
//! Rows lie in chunks in the order in which they were written. A chunk never changes; what is
//! written makes a new last chunk, and what is deleted a new set of the rows that live. A search
//! works on one [`Rows`] to its end, and the writer publishes the next: nobody waits for anybody.

use std::sync::Arc;

use half::f16;

use super::attributes::{Attributes, CHUNK_ROWS, RowSet};
use crate::gallery::{config::VectorFormat, filter::ItemFilter, item::Metadata, name::Label};

/// Vectors of a chunk, row by row.
#[derive(Debug, Clone)]
pub(super) enum Vectors {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Vectors {
    fn with_capacity(format: VectorFormat, values: usize) -> Self {
        match format {
            VectorFormat::F32 => Self::F32(Vec::with_capacity(values)),
            VectorFormat::F16 => Self::F16(Vec::with_capacity(values)),
        }
    }

    fn push(&mut self, vector: &[f32]) {
        match self {
            Self::F32(values) => values.extend_from_slice(vector),
            Self::F16(values) => values.extend(vector.iter().map(|&value| f16::from_f32(value))),
        }
    }

    fn push_from(&mut self, other: &Self, row: usize, dim: usize) {
        let range = row * dim..(row + 1) * dim;
        match (self, other) {
            (Self::F32(to), Self::F32(from)) => to.extend_from_slice(&from[range]),
            (Self::F16(to), Self::F16(from)) => to.extend_from_slice(&from[range]),
            _ => unreachable!("a gallery has one format"),
        }
    }

    /// A row in single precision.
    pub(super) fn row(&self, row: usize, dim: usize, to: &mut Vec<f32>) {
        let range = row * dim..(row + 1) * dim;
        to.clear();
        match self {
            Self::F32(values) => to.extend_from_slice(&values[range]),
            Self::F16(values) => to.extend(values[range].iter().map(|value| value.to_f32())),
        }
    }
}

/// A row to be added.
#[derive(Debug, Clone)]
pub(super) struct NewRow {
    pub(super) serial: u64,
    pub(super) place: u64,
    pub(super) vector: Vec<f32>,
    pub(super) label: Option<Label>,
    pub(super) metadata: Metadata,
}

/// Some rows that were written one after the other.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Rising.
    pub(super) serials: Vec<u64>,
    pub(super) places: Vec<u64>,
    pub(super) vectors: Vectors,
    attributes: Attributes,
}

impl Chunk {
    fn new(format: VectorFormat, rows: usize, dim: usize) -> Self {
        Self {
            serials: Vec::with_capacity(rows),
            places: Vec::with_capacity(rows),
            vectors: Vectors::with_capacity(format, rows * dim),
            attributes: Attributes::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.serials.len()
    }

    fn push(&mut self, row: &NewRow) {
        self.attributes
            .add(self.len(), row.label.as_ref(), &row.metadata);
        self.serials.push(row.serial);
        self.places.push(row.place);
        self.vectors.push(&row.vector);
    }

    /// Adds some rows of an earlier chunk.
    fn push_from(&mut self, other: &Self, rows: &RowSet, dim: usize) {
        let mut new = vec![None; other.len()];
        for row in rows.iter() {
            new[row] = Some(self.len() as u16);
            self.serials.push(other.serials[row]);
            self.places.push(other.places[row]);
            self.vectors.push_from(&other.vectors, row, dim);
        }
        self.attributes.add_from(&other.attributes, &new);
    }
}

/// A chunk and its rows that have not been deleted or replaced.
#[derive(Debug, Clone)]
pub(super) struct LiveChunk {
    pub(super) chunk: Arc<Chunk>,
    pub(super) live: Arc<RowSet>,
}

impl LiveChunk {
    fn whole(chunk: Chunk) -> Self {
        let live = Arc::new(RowSet::first(chunk.len()));
        Self {
            chunk: Arc::new(chunk),
            live,
        }
    }

    fn is_full(&self) -> bool {
        self.chunk.len() == CHUNK_ROWS
    }

    fn last_serial(&self) -> u64 {
        self.chunk.serials.last().copied().unwrap_or_default()
    }
}

/// All rows of a gallery.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) dim: usize,
    /// [`super::codec::GalleryRow::next_serial`] of the commit that these rows are of.
    pub(super) version: u64,
    format: VectorFormat,
    pub(super) chunks: Vec<LiveChunk>,
    /// Rows that live.
    pub(super) live: usize,
}

impl Rows {
    /// None yet.
    pub(super) fn new(version: u64, dim: usize, format: VectorFormat) -> Self {
        Self {
            dim,
            version,
            format,
            chunks: Vec::new(),
            live: 0,
        }
    }

    /// The rows after a commit: some more, with serials above all that are here, and without those
    /// of the serials `dead`.
    pub(super) fn after(&self, version: u64, added: &[NewRow], dead: &[u64]) -> Self {
        let mut next = Self {
            version,
            ..self.clone()
        };
        next.add(added);
        for &serial in dead {
            if let Some((index, row)) = next.locate(serial) {
                Arc::make_mut(&mut next.chunks[index].live).remove(row);
                next.live -= 1;
            }
        }
        if !dead.is_empty() {
            next.compact();
        }
        next
    }

    fn add(&mut self, mut added: &[NewRow]) {
        self.live += added.len();
        while !added.is_empty() {
            let last = self.chunks.pop_if(|last| !last.is_full());
            let before = last.as_ref().map_or(0, |last| last.chunk.len());
            let (now, later) = added.split_at(added.len().min(CHUNK_ROWS - before));
            let mut chunk = Chunk::new(self.format, before + now.len(), self.dim);
            let mut live = RowSet::EMPTY;
            if let Some(last) = &last {
                chunk.push_from(&last.chunk, &RowSet::first(before), self.dim);
                live.clone_from(&last.live);
            }
            for row in now {
                live.insert(chunk.len());
                chunk.push(row);
            }
            self.chunks.push(LiveChunk {
                chunk: Arc::new(chunk),
                live: Arc::new(live),
            });
            added = later;
        }
    }

    /// Joins neighbors that have become half empty or more, and drops what is empty.
    fn compact(&mut self) {
        let mut kept: Vec<LiveChunk> = Vec::with_capacity(self.chunks.len());
        for chunk in self.chunks.drain(..) {
            let live = chunk.live.len();
            if live == 0 {
                continue;
            }
            let fits = |before: &mut LiveChunk| before.live.len() + live <= CHUNK_ROWS / 2;
            match kept.pop_if(fits) {
                Some(before) => {
                    let mut joined = Chunk::new(self.format, CHUNK_ROWS, self.dim);
                    joined.push_from(&before.chunk, &before.live, self.dim);
                    joined.push_from(&chunk.chunk, &chunk.live, self.dim);
                    kept.push(LiveChunk::whole(joined));
                }
                None => kept.push(chunk),
            }
        }
        self.chunks = kept;
    }

    /// Where the row of a serial is, dead or alive.
    pub(super) fn locate(&self, serial: u64) -> Option<(usize, usize)> {
        let index = self
            .chunks
            .partition_point(|chunk| chunk.last_serial() < serial);
        let chunk = &self.chunks.get(index)?.chunk;
        // Nearly always there are no gaps.
        let guess = usize::try_from(serial.wrapping_sub(*chunk.serials.first()?)).ok();
        let row = guess.filter(|&row| chunk.serials.get(row) == Some(&serial));
        Some((
            index,
            row.or_else(|| chunk.serials.binary_search(&serial).ok())?,
        ))
    }

    /// Per chunk, the rows that live and pass.
    pub(super) fn passing(&self, filter: Option<&ItemFilter>) -> Vec<RowSet> {
        let passing = |chunk: &LiveChunk| match filter {
            Some(filter) => chunk.live.and(&chunk.chunk.attributes.rows(filter)),
            None => RowSet::clone(&chunk.live),
        };
        self.chunks.iter().map(passing).collect()
    }

    /// The serial of the living row of an item. Looks at all of them.
    pub(super) fn serial_at(&self, place: u64) -> Option<u64> {
        let living = self
            .chunks
            .iter()
            .flat_map(|LiveChunk { chunk, live }| live.iter().map(move |row| (chunk, row)));
        living
            .into_iter()
            .find(|(chunk, row)| chunk.places[*row] == place)
            .map(|(chunk, row)| chunk.serials[row])
    }

    /// The serial of the newest row; 0 without rows.
    pub(super) fn last_serial(&self) -> u64 {
        self.chunks.last().map_or(0, LiveChunk::last_serial)
    }
}
