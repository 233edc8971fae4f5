//! Search: finds the rows that may be returned, the nearest of them, and their items.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    attributes::RowSet,
    environment::{Environment, ReadTransaction},
    index::ApproximateIndex,
    memory::{LiveGallery, Memory},
    rows::Rows,
    scan::{Best, Hit, scan, score},
    view::View,
};
use crate::{
    error::{Error, Result},
    gallery::{Binding, GalleryName, Neighbor, Search, no_gallery},
};

/// Number of candidates from the index per requested neighbor, because the index ranks 8-bit
/// vectors.
const CANDIDATES: usize = 2;

/// Timeout for the publication of a commit, which takes microseconds.
const PUBLICATION_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn neighbors(
    environment: &Environment,
    memory: &Memory,
    name: &GalleryName,
    search: &Search,
) -> Result<Vec<Neighbor>> {
    let snapshot = ReadSnapshot::take(environment, memory, name)?;
    let view = View::new(environment, &snapshot.txn);
    let number = snapshot.gallery.number;
    search.check(name, &snapshot.binding)?;
    let except = match &search.except {
        Some(id) => view.find(number, id)?.map(|record| record.serial),
        None => None,
    };
    // One more neighbor, because the excluded item may be among them.
    let k = search.k + usize::from(except.is_some());
    let mut hits = snapshot.hits(search, k, memory.exact_up_to)?;
    hits.retain(|hit| Some(hit.serial) != except);
    hits.truncate(search.k);
    let mut neighbors = Vec::with_capacity(hits.len());
    for hit in hits {
        let record = view.record(number, hit.place)?.ok_or_else(|| {
            Error::internal(format!(
                "item {} of the gallery `{name}` is gone",
                hit.place
            ))
        })?;
        neighbors.push(Neighbor {
            item: record.item,
            score: hit.score,
        });
    }
    Ok(neighbors)
}

/// State of disk and memory after the same commit.
struct ReadSnapshot<'a> {
    txn: ReadTransaction<'a>,
    gallery: Arc<LiveGallery>,
    /// The index, and the serial up to which it holds every live row. The serial is read before
    /// the rows.
    index: Option<(Arc<ApproximateIndex>, u64)>,
    rows: Arc<Rows>,
    binding: Binding,
}

impl<'a> ReadSnapshot<'a> {
    /// Takes a snapshot. Between a commit and its publication the disk is ahead of memory, so this
    /// waits for the publication.
    fn take(environment: &'a Environment, memory: &Memory, name: &GalleryName) -> Result<Self> {
        let deadline = Instant::now() + PUBLICATION_TIMEOUT;
        loop {
            let publications = memory.publications();
            let gallery = memory.gallery(name).ok_or_else(|| no_gallery(name))?;
            let index = gallery.index.load_full().map(|index| {
                let upto = index.upto();
                (index, upto)
            });
            let rows = gallery.rows.load_full();
            let txn = environment.read()?;
            if let Some(row) = View::new(environment, &txn).gallery(name)?
                && row.number == gallery.number
                && row.next_serial == rows.version
            {
                return Ok(Self {
                    txn,
                    gallery,
                    index,
                    rows,
                    binding: row.binding,
                });
            }
            drop(txn);
            if !memory.wait_for_publication(publications, deadline) {
                return Err(Error::internal(
                    "the gallery's thread has ended between a commit and its publication",
                ));
            }
        }
    }

    fn hits(&self, search: &Search, k: usize, exact_up_to: usize) -> Result<Vec<Hit>> {
        let rows = &*self.rows;
        let passing = rows.passing(search.filter.as_ref());
        let candidates: usize = passing.iter().map(RowSet::len).sum();
        let mut best = Best::new(k);
        let is_approximate = !search.exact && candidates > exact_up_to;
        let index = self.index.as_ref().filter(|_| is_approximate);
        let Some(&(ref index, upto)) = index else {
            scan(rows, &passing, &search.vector, 0, &mut best);
            return Ok(best.into_sorted());
        };
        let accept = |serial: u64| {
            rows.locate(serial)
                .is_some_and(|(chunk, row)| passing[chunk].contains(row))
        };
        // No filter is needed if the index holds the live rows and no others.
        let all_pass =
            candidates == rows.live && index.len() == rows.live && rows.last_serial() <= upto;
        let accept: Option<&dyn Fn(u64) -> bool> = if all_pass { None } else { Some(&accept) };
        // Rows that entered the index after `upto` are scanned below and must not be found twice.
        for serial in index.search(&search.vector, k * CANDIDATES, accept)? {
            if let Some((index, row)) = rows.locate(serial).filter(|_| serial <= upto)
                && passing[index].contains(row)
            {
                let chunk = &rows.chunks[index].chunk;
                best.offer(Hit {
                    score: score(&search.vector, &chunk.vectors, row),
                    serial,
                    place: chunk.places[row],
                });
            }
        }
        scan(rows, &passing, &search.vector, upto, &mut best);
        // The passing rows may lie too far apart for the index, or behind entries that are newer
        // than these rows.
        if best.len() < k.min(candidates) {
            best = Best::new(k);
            scan(rows, &passing, &search.vector, 0, &mut best);
        }
        Ok(best.into_sorted())
    }
}
