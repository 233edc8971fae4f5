//! Cache of positions by grid, shared by all workers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ndarray::Array3;

use crate::{model::PositionEncoding, vision::Grid};

/// Maximum number of cached values (f32), over all entries: 64 MB.
const MAX_VALUES: usize = 16 << 20;

/// Computes the positions of grids and keeps the most recently used.
///
/// The lock is taken once for each batch and held for the lookup, not for the computation.
pub(super) struct PositionCache {
    encoding: PositionEncoding,
    entries: Mutex<Entries>,
}

/// Positions by grid, most recently used first.
type Entries = VecDeque<(Grid, Arc<Array3<f32>>)>;

impl PositionCache {
    pub(super) fn new(encoding: PositionEncoding) -> Self {
        Self {
            encoding,
            entries: Mutex::default(),
        }
    }

    /// Returns the name of the graph's input.
    pub(super) fn input_name(&self) -> &'static str {
        self.encoding.input_name()
    }

    /// Returns the graph's input for `grid`; see [`PositionEncoding::for_grid`].
    pub(super) fn get(&self, grid: Grid) -> Arc<Array3<f32>> {
        if let Some(positions) = look_up(&mut self.lock(), grid) {
            return positions;
        }
        let positions = Arc::new(self.encoding.for_grid(grid));
        let mut entries = self.lock();
        if let Some(positions) = look_up(&mut entries, grid) {
            // Another worker was faster.
            return positions;
        }
        entries.push_front((grid, Arc::clone(&positions)));
        while entries.len() > 1
            && entries
                .iter()
                .map(|(_, positions)| positions.len())
                .sum::<usize>()
                > MAX_VALUES
        {
            entries.pop_back();
        }
        positions
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the positions of `grid` if they are cached, and makes them the most recently used.
fn look_up(entries: &mut Entries, grid: Grid) -> Option<Arc<Array3<f32>>> {
    let index = entries.iter().position(|(cached, _)| *cached == grid)?;
    let entry = entries.remove(index)?;
    let positions = Arc::clone(&entry.1);
    entries.push_front(entry);
    Some(positions)
}
