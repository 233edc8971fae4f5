//! The way of a search: which rows may be found, which of them are near, and what is known of
//! these.

use std::{sync::Arc, time::Duration};

use heed::{RoTxn, WithoutTls};

use super::{
    attributes::RowSet,
    environment::Environment,
    index::ApproximateIndex,
    memory::{LiveGallery, Memory},
    reader,
    rows::Rows,
    scan::{Best, Hit, scan, score},
};
use crate::{
    error::{Error, Kind, Result},
    gallery::{Binding, GalleryName, Neighbor, Search},
};

/// Candidates of the index for each neighbor that is wanted, as its order is that of 8 bits.
const CANDIDATES: usize = 2;

/// The neighbors with all that is known of them.
pub(super) fn neighbors(
    environment: &Environment,
    memory: &Memory,
    name: &GalleryName,
    search: &Search,
) -> Result<Vec<Neighbor>> {
    let Moment {
        txn,
        gallery,
        index,
        rows,
        binding,
    } = Moment::now(environment, memory, name)?;
    search.check(name, &binding)?;
    let except = match &search.except {
        Some(id) => {
            reader::find(environment, &txn, gallery.number, id)?.map(|record| record.serial)
        }
        None => None,
    };
    // One more than is wanted, in case the one that is not wanted is among them.
    let k = search.k + usize::from(except.is_some());
    let mut hits = hits(&rows, index.as_ref(), search, k, memory.exact_up_to)?;
    hits.retain(|hit| Some(hit.serial) != except);
    hits.truncate(search.k);
    let neighbor = |hit: Hit| {
        let record = reader::record(environment, &txn, gallery.number, hit.place)?;
        let record = record.ok_or_else(|| {
            Error::internal(format!(
                "item {} of the gallery `{name}` is gone",
                hit.place
            ))
        })?;
        Ok(Neighbor {
            item: record.item,
            score: hit.score,
        })
    };
    hits.into_iter().map(neighbor).collect()
}

/// Disk and memory as they are after the same commit.
struct Moment<'a> {
    txn: RoTxn<'a, WithoutTls>,
    gallery: Arc<LiveGallery>,
    index: Option<Indexed>,
    rows: Arc<Rows>,
    binding: Binding,
}

/// The index of a gallery, and how far it was before the rows were looked at: each row that lives,
/// and is no newer, is in it.
struct Indexed {
    index: Arc<ApproximateIndex>,
    upto: u64,
}

impl<'a> Moment<'a> {
    fn now(environment: &'a Environment, memory: &Memory, name: &GalleryName) -> Result<Self> {
        for _ in 0..TRIES {
            let gallery = memory.gallery(name)?;
            let index = gallery.index.load_full().map(|index| Indexed {
                upto: index.upto(),
                index,
            });
            let rows = gallery.rows.load_full();
            let txn = environment.read()?;
            match reader::gallery(environment, &txn, name) {
                Ok(row) if row.number == gallery.number && row.next_serial == rows.version => {
                    return Ok(Self {
                        txn,
                        gallery,
                        index,
                        rows,
                        binding: row.binding,
                    });
                }
                // The writer is between its commit and the publication, which follows at once.
                Ok(_) => std::thread::sleep(BETWEEN),
                Err(error) if error.kind() == Kind::NotFound => std::thread::sleep(BETWEEN),
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal(
            "the gallery's thread has ended between a commit and its publication",
        ))
    }
}

/// Seconds in all.
const TRIES: usize = 50_000;
/// Shorter than a publication takes.
const BETWEEN: Duration = Duration::from_micros(20);

fn hits(
    rows: &Rows,
    index: Option<&Indexed>,
    search: &Search,
    k: usize,
    exact_up_to: usize,
) -> Result<Vec<Hit>> {
    let passing = rows.passing(search.filter.as_ref());
    let candidates: usize = passing.iter().map(RowSet::len).sum();
    let mut best = Best::new(k);
    match index.filter(|_| !search.exact && candidates > exact_up_to) {
        None => scan(rows, &passing, &search.vector, 0, &mut best),
        Some(&Indexed { ref index, upto }) => {
            let accept = |serial: u64| {
                rows.locate(serial)
                    .is_some_and(|(chunk, row)| passing[chunk].contains(row))
            };
            // All that are in it live: as many as there are, and none that lives is missing.
            let all_pass =
                candidates == rows.live && index.len() == rows.live && rows.last_serial() <= upto;
            let accept: Option<&dyn Fn(u64) -> bool> = if all_pass { None } else { Some(&accept) };
            // Whatever has been added to the index behind `upto` is scanned, too, and must not be
            // found twice.
            for serial in index.search(&search.vector, k * CANDIDATES, accept)? {
                if let Some((index, row)) = rows.locate(serial).filter(|_| serial <= upto)
                    && passing[index].contains(row)
                {
                    let chunk = &rows.chunks[index].chunk;
                    let score = score(&search.vector, &chunk.vectors, row);
                    best.offer(Hit {
                        score,
                        serial,
                        place: chunk.places[row],
                    });
                }
            }
            scan(rows, &passing, &search.vector, upto, &mut best);
            // What passes may lie too far apart for the index, or behind entries that are newer
            // than these rows.
            if best.len() < k.min(candidates) {
                best = Best::new(k);
                scan(rows, &passing, &search.vector, 0, &mut best);
            }
        }
    }
    Ok(best.into_sorted())
}
