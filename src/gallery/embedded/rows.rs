//! An immutable snapshot of the vectors of a gallery in memory.
//!
//! Rows are stored in chunks, in the order of writes. A chunk never changes: a write creates a new
//! last chunk, and a deletion a new set of live rows. A search uses one [`Rows`] until it ends,
//! while the writer publishes the next, so neither waits for the other.

use std::sync::Arc;

use super::{
    attributes::{Attributes, CHUNK_ROWS, RowSet},
    readers::Caller,
    vectors::{BitCoder, Encoding, Vectors},
};
use crate::{
    error::Result,
    gallery::{ItemFilter, Label, Metadata, VectorFormat},
};

#[derive(Debug, Clone)]
pub(super) struct NewRow {
    pub(super) serial: u64,
    pub(super) place: u64,
    pub(super) vector: Vec<f32>,
    pub(super) label: Option<Label>,
    pub(super) metadata: Metadata,
}

/// Consecutively written rows.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Serials, ascending.
    pub(super) serials: Vec<u64>,
    pub(super) places: Vec<u64>,
    pub(super) vectors: Vectors,
    attributes: Attributes,
}

impl Chunk {
    fn new(encoding: &Encoding, rows: usize, dim: usize) -> Self {
        Self {
            serials: Vec::with_capacity(rows),
            places: Vec::with_capacity(rows),
            vectors: Vectors::with_capacity(encoding, rows, dim),
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

/// A chunk, and its rows that were not deleted or replaced.
#[derive(Debug, Clone)]
pub(super) struct LiveChunk {
    pub(super) chunk: Arc<Chunk>,
    pub(super) live: Arc<RowSet>,
}

impl LiveChunk {
    pub(super) fn last_serial(&self) -> u64 {
        self.chunk.serials.last().copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) dim: usize,
    /// [`super::codec::GalleryRow::next_serial`] after the commit of these rows.
    pub(super) version: u64,
    pub(super) format: VectorFormat,
    /// Encodes vectors in one bit a value; made from the first full chunk.
    coder: Option<Arc<BitCoder>>,
    pub(super) chunks: Vec<LiveChunk>,
    /// Number of live rows.
    pub(super) live: usize,
}

impl Rows {
    pub(super) fn new(version: u64, dim: usize, format: VectorFormat) -> Self {
        Self {
            dim,
            version,
            format,
            coder: None,
            chunks: Vec::new(),
            live: 0,
        }
    }

    /// Returns rows without any, which are encoded with a coder if their format needs one.
    pub(super) fn with_coder(self, coder: Option<BitCoder>) -> Self {
        Self {
            coder: coder.map(Arc::new),
            ..self
        }
    }

    fn encoding(&self) -> Encoding {
        Encoding::of(self.format, self.coder.as_ref())
    }

    /// Returns the rows after a commit that adds rows, with serials above all existing ones, and
    /// removes the rows of the serials `dead`.
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
            let last = self.chunks.pop_if(|last| last.chunk.len() < CHUNK_ROWS);
            let before = last.as_ref().map_or(0, |last| last.chunk.len());
            let (now, later) = added.split_at(added.len().min(CHUNK_ROWS - before));
            let mut chunk = Chunk::new(&self.encoding(), before + now.len(), self.dim);
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
            self.encode_first_full();
        }
    }

    /// Makes the coder once there are enough rows for a center, and encodes the chunks with it.
    fn encode_first_full(&mut self) {
        let needs_coder = self.format == VectorFormat::B1 && self.coder.is_none();
        let full = |live: &&LiveChunk| live.chunk.len() == CHUNK_ROWS;
        let Some(full) = self.chunks.last().filter(full).filter(|_| needs_coder) else {
            return;
        };
        let Some(vectors) = full.chunk.vectors.singles() else {
            return;
        };
        let coder = BitCoder::of_mean(vectors.chunks_exact(self.dim), self.dim);
        self.coder = Some(Arc::new(coder));
        let encoding = self.encoding();
        for LiveChunk { chunk, .. } in &mut self.chunks {
            let mut encoded = Chunk::new(&encoding, chunk.len(), self.dim);
            encoded.push_from(chunk, &RowSet::first(chunk.len()), self.dim);
            *chunk = Arc::new(encoded);
        }
    }

    /// Merges adjacent chunks that are at most half full together, and drops empty ones.
    fn compact(&mut self) {
        let encoding = self.encoding();
        let mut kept: Vec<LiveChunk> = Vec::with_capacity(self.chunks.len());
        for chunk in self.chunks.drain(..) {
            let live = chunk.live.len();
            if live == 0 {
                continue;
            }
            let fits = |before: &mut LiveChunk| before.live.len() + live <= CHUNK_ROWS / 2;
            match kept.pop_if(fits) {
                Some(before) => {
                    let rows = before.live.len() + live;
                    let mut joined = Chunk::new(&encoding, rows, self.dim);
                    joined.push_from(&before.chunk, &before.live, self.dim);
                    joined.push_from(&chunk.chunk, &chunk.live, self.dim);
                    kept.push(LiveChunk {
                        live: Arc::new(RowSet::first(joined.len())),
                        chunk: Arc::new(joined),
                    });
                }
                None => kept.push(chunk),
            }
        }
        self.chunks = kept;
    }

    /// Returns the index of the first chunk with rows above `serial`.
    pub(super) fn first_chunk_after(&self, serial: u64) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.last_serial() <= serial)
    }

    /// Returns the chunk and the row of a serial, whether it is live or dead.
    pub(super) fn locate(&self, serial: u64) -> Option<(usize, usize)> {
        let index = self
            .chunks
            .partition_point(|chunk| chunk.last_serial() < serial);
        let chunk = &self.chunks.get(index)?.chunk;
        // Serials rarely have gaps.
        let guess = usize::try_from(serial.wrapping_sub(*chunk.serials.first()?)).ok();
        let row = guess.filter(|&row| chunk.serials.get(row) == Some(&serial));
        let row = row.or_else(|| chunk.serials.binary_search(&serial).ok())?;
        Some((index, row))
    }

    /// Returns the live rows of each chunk that pass the filter.
    pub(super) fn passing(
        &self,
        filter: Option<&ItemFilter>,
        caller: Caller<'_>,
    ) -> Result<Vec<RowSet>> {
        let rows = |LiveChunk { chunk, live }: &LiveChunk| {
            caller.check()?;
            Ok(match filter {
                Some(filter) => live.and(&chunk.attributes.rows(filter)),
                None => RowSet::clone(live),
            })
        };
        self.chunks.iter().map(rows).collect()
    }

    /// Returns the serial of the live row of an item. Scans all rows.
    pub(super) fn serial_at(&self, place: u64) -> Option<u64> {
        self.chunks.iter().find_map(|LiveChunk { chunk, live }| {
            let row = live.iter().find(|&row| chunk.places[row] == place)?;
            Some(chunk.serials[row])
        })
    }

    /// Returns the serial of the newest row; 0 without rows.
    pub(super) fn last_serial(&self) -> u64 {
        self.chunks.last().map_or(0, LiveChunk::last_serial)
    }
}
