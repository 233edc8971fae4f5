//! The way of a search: which rows may be found, which of them are near, and what is known of these.

use super::{
    attributes::RowSet,
    environment::Environment,
    index::ApproximateIndex,
    memory::LiveGallery,
    reader,
    rows::Rows,
    scan::{Best, Hit, scan, score},
};
use crate::{
    error::Result,
    gallery::{Neighbor, Search},
};

/// Times that a search is done again because what it found has been replaced meanwhile.
const TRIES: usize = 4;
/// Candidates of the index for each neighbour that is wanted, as its order is that of 8 bits.
const CANDIDATES: usize = 2;

/// The neighbours with all that is known of them.
pub(super) fn neighbors(
    environment: &Environment,
    gallery: &LiveGallery,
    search: &Search,
    exact_up_to: usize,
) -> Result<Vec<Neighbor>> {
    let mut found = Vec::new();
    for _ in 0..TRIES {
        let rows = gallery.rows.load_full();
        let txn = environment.read()?;
        let except = match &search.except {
            Some(id) => reader::find(environment, &txn, gallery.number, id)?.map(|record| record.serial),
            None => None,
        };
        // One more than is wanted, in case the one that is not wanted is among them.
        let more = usize::from(except.is_some());
        let mut hits = hits(&rows, gallery.index.load().as_deref(), search, search.k + more, exact_up_to)?;
        hits.retain(|hit| Some(hit.serial) != except);
        hits.truncate(search.k);
        found.clear();
        let wanted = hits.len();
        for hit in hits {
            // Gone or replaced between the two looks.
            if let Some(record) = reader::record(environment, &txn, gallery.number, hit.place)?
                && record.serial == hit.serial
            {
                found.push(Neighbor { item: record.item, score: hit.score });
            }
        }
        if found.len() == wanted {
            break;
        }
    }
    Ok(found)
}

fn hits(
    rows: &Rows,
    index: Option<&ApproximateIndex>,
    search: &Search,
    k: usize,
    exact_up_to: usize,
) -> Result<Vec<Hit>> {
    let passing = rows.passing(search.filter.as_ref());
    let candidates: usize = passing.iter().map(RowSet::len).sum();
    let mut best = Best::new(k);
    match index.filter(|_| !search.exact && candidates > exact_up_to) {
        None => scan(rows, &passing, &search.vector, 0, &mut best),
        Some(index) => {
            let upto = index.upto();
            let accept = |serial: u64| rows.locate(serial).is_some_and(|(chunk, row)| passing[chunk].contains(row));
            let all_pass = candidates == rows.live && index.len() == rows.live;
            let accept: Option<&dyn Fn(u64) -> bool> = if all_pass { None } else { Some(&accept) };
            // Whatever has been added to the index behind `upto` is scanned, too, and must not be found twice.
            for serial in index.search(&search.vector, k * CANDIDATES, accept)? {
                if let Some((index, row)) = rows.locate(serial).filter(|_| serial <= upto)
                    && passing[index].contains(row)
                {
                    let chunk = &rows.chunks[index].chunk;
                    let score = score(&search.vector, &chunk.vectors, row);
                    best.offer(Hit { score, serial, place: chunk.places[row] });
                }
            }
            scan(rows, &passing, &search.vector, upto, &mut best);
        }
    }
    Ok(best.into_sorted())
}
