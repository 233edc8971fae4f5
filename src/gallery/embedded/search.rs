//! Search: finds the rows that may be returned, the nearest of them, and their items.

use super::{
    attributes::RowSet,
    consistent_state::ConsistentState,
    environment::Environment,
    memory::Memory,
    readers::Caller,
    rows::LiveChunk,
    scan::{Best, Hit, scan},
    vectors::{Scorer, products},
    view::View,
};
use crate::{
    error::{Error, Result},
    gallery::{
        GalleryName, ItemId, Neighbor, Query, Search, VectorFormat, item::check_vector, no_item,
    },
};

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
    let mut hits = hits(&state, view, search, vector, k, memory.exact_up_to, caller)?;
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
    let dim = state.rows.dim;
    let vector = view.vector(state.gallery.number, record.item.place, dim)?;
    check_vector(&vector, dim).map_err(|_| {
        let id = id.as_str();
        Error::damaged(format!(
            "the vector of {id:?} is damaged; store the item again"
        ))
    })?;
    Ok(vector)
}

/// Returns the nearest rows with the scores of their stored vectors.
fn hits(
    state: &ConsistentState<'_>,
    view: View<'_>,
    search: &Search,
    vector: &[f32],
    k: usize,
    exact_up_to: usize,
    caller: Caller<'_>,
) -> Result<Vec<Hit>> {
    let rows = &*state.rows;
    let passing = rows.passing(search.filter.as_ref(), caller)?;
    let stored = StoredScores {
        view,
        gallery: state.gallery.number,
        query: vector,
    };
    if rows.format == VectorFormat::F32 {
        let best = candidates(state, search, &passing, vector, k, exact_up_to, caller)?;
        return Ok(best.into_sorted());
    }
    let mut best = Best::new(k);
    if search.exact {
        for (LiveChunk { chunk, .. }, passing) in rows.chunks.iter().zip(&passing) {
            caller.check()?;
            for row in passing.iter() {
                best.offer(stored.hit(chunk.serials[row], chunk.places[row])?);
            }
        }
        return Ok(best.into_sorted());
    }
    let found = candidates(state, search, &passing, vector, k, exact_up_to, caller)?;
    for hit in found.into_sorted() {
        best.offer(stored.hit(hit.serial, hit.place)?);
    }
    Ok(best.into_sorted())
}

/// Scores of vectors on the disk.
struct StoredScores<'a> {
    view: View<'a>,
    gallery: u32,
    query: &'a [f32],
}

impl StoredScores<'_> {
    fn hit(&self, serial: u64, place: u64) -> Result<Hit> {
        let vector = self.view.vector(self.gallery, place, self.query.len())?;
        if vector.len() != self.query.len() {
            return Err(Error::damaged(format!(
                "the vector at place {place} is damaged; `gallery check` names its item"
            )));
        }
        let mut score = [0.0];
        products(self.query, &vector, &mut score);
        Ok(Hit {
            score: score[0].clamp(-1.0, 1.0),
            serial,
            place,
        })
    }
}

/// Returns the best rows by what memory has of their vectors, more than `k` if that is not their
/// stored vectors.
fn candidates(
    state: &ConsistentState<'_>,
    search: &Search,
    passing: &[RowSet],
    vector: &[f32],
    k: usize,
    exact_up_to: usize,
    caller: Caller<'_>,
) -> Result<Best> {
    let rows = &*state.rows;
    let count = rows.format.candidates(k, rows.dim);
    let mut scorer = Scorer::new(vector);
    let mut best = Best::new(count);
    let passing_rows: usize = passing.iter().map(RowSet::len).sum();
    let is_approximate = !search.exact && passing_rows > exact_up_to;
    let index = state.index.as_ref().filter(|_| is_approximate);
    let Some(&(ref index, upto)) = index else {
        scan(rows, passing, &mut scorer, 0, &mut best, caller)?;
        return Ok(best);
    };
    let accept = |serial: u64| {
        rows.locate(serial)
            .is_some_and(|(chunk, row)| passing[chunk].contains(row))
    };
    // No filter is needed if the index holds the live rows and no others.
    let all_pass =
        passing_rows == rows.live && index.len() == rows.live && rows.last_serial() <= upto;
    let accept: Option<&dyn Fn(u64) -> bool> = if all_pass { None } else { Some(&accept) };
    // Rows that entered the index after `upto` are scanned below and must not be found twice.
    for (serial, estimate) in index.search(vector, k, passing_rows, accept) {
        if let Some((index, row)) = rows.locate(serial).filter(|_| serial <= upto)
            && passing[index].contains(row)
        {
            let chunk = &rows.chunks[index].chunk;
            let score = match rows.format {
                VectorFormat::F32 => scorer.one(&chunk.vectors, row).clamp(-1.0, 1.0),
                VectorFormat::F16 | VectorFormat::I8 => scorer.one(&chunk.vectors, row),
                VectorFormat::B1 => estimate,
            };
            best.offer(Hit {
                score,
                serial,
                place: chunk.places[row],
            });
        }
    }
    scan(rows, passing, &mut scorer, upto, &mut best, caller)?;
    // The passing rows may lie too far apart for the index, or behind entries that are newer
    // than these rows.
    if best.len() < k.min(passing_rows) {
        best = Best::new(count);
        scan(rows, passing, &mut scorer, 0, &mut best, caller)?;
    }
    Ok(best)
}
