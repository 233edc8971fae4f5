//! Search: finds the rows that may be returned, the nearest of them, and their items.

use super::{
    attributes::RowSet,
    consistent_state::ConsistentState,
    environment::Environment,
    memory::Memory,
    readers::Caller,
    scan::{Best, Hit, scan, score},
    view::View,
};
use crate::{
    error::{Error, Result},
    gallery::{GalleryName, ItemId, Neighbor, Query, Search, no_item},
};

/// Number of candidates from the index per requested neighbor, because the index ranks 8-bit
/// vectors.
const CANDIDATES: usize = 2;

pub(super) fn neighbors(
    environment: &Environment,
    memory: &Memory,
    name: &GalleryName,
    search: &Search,
    caller: Caller<'_>,
) -> Result<Vec<Neighbor>> {
    let state = ConsistentState::take(environment, memory, name, caller)?;
    let view = View::new(environment, &state.txn);
    let number = state.gallery.number;
    search.check(name, &state.binding)?;
    let vector = match &search.query {
        Query::Vector(vector) => vector,
        Query::Item(id) => &vector_of(&state, view, name, id)?,
    };
    let except = match &search.except {
        Some(id) => view.find(number, id)?.map(|record| record.serial),
        None => None,
    };
    // One more neighbor, because the excluded item may be among them.
    let k = search.k + usize::from(except.is_some());
    let mut hits = hits(&state, search, vector, k, memory.exact_up_to, caller)?;
    hits.retain(|hit| Some(hit.serial) != except);
    hits.truncate(search.k);
    let mut neighbors = Vec::with_capacity(hits.len());
    for hit in hits {
        caller.check()?;
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

/// Returns the vector of an item at the time of the search.
fn vector_of(
    state: &ConsistentState<'_>,
    view: View<'_>,
    name: &GalleryName,
    id: &ItemId,
) -> Result<Vec<f32>> {
    let record = view.find(state.gallery.number, id)?;
    let record = record.ok_or_else(|| no_item(name, id))?;
    let rows = &state.rows;
    let (chunk, row) = rows.locate(record.serial).ok_or_else(|| {
        let id = id.as_str();
        Error::damaged(format!(
            "the vector of {id:?} is damaged; store the item again"
        ))
    })?;
    let mut vector = Vec::with_capacity(rows.dim);
    rows.chunks[chunk]
        .chunk
        .vectors
        .row(row, rows.dim, &mut vector);
    Ok(vector)
}

fn hits(
    state: &ConsistentState<'_>,
    search: &Search,
    vector: &[f32],
    k: usize,
    exact_up_to: usize,
    caller: Caller<'_>,
) -> Result<Vec<Hit>> {
    let rows = &*state.rows;
    let passing = rows.passing(search.filter.as_ref(), caller)?;
    let candidates: usize = passing.iter().map(RowSet::len).sum();
    let mut best = Best::new(k);
    let is_approximate = !search.exact && candidates > exact_up_to;
    let index = state.index.as_ref().filter(|_| is_approximate);
    let Some(&(ref index, upto)) = index else {
        scan(rows, &passing, vector, 0, &mut best, caller)?;
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
    for serial in index.search(vector, k * CANDIDATES, accept)? {
        if let Some((index, row)) = rows.locate(serial).filter(|_| serial <= upto)
            && passing[index].contains(row)
        {
            let chunk = &rows.chunks[index].chunk;
            best.offer(Hit {
                score: score(vector, &chunk.vectors, row),
                serial,
                place: chunk.places[row],
            });
        }
    }
    scan(rows, &passing, vector, upto, &mut best, caller)?;
    // The passing rows may lie too far apart for the index, or behind entries that are newer
    // than these rows.
    if best.len() < k.min(candidates) {
        best = Best::new(k);
        scan(rows, &passing, vector, 0, &mut best, caller)?;
    }
    Ok(best.into_sorted())
}
