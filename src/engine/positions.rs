//! Cache of position tables by grid, shared by all workers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ndarray::Array2;

use crate::{model::PositionTable, vision::Grid};

/// Maximum number of cached values (f32), over all tables: 64 MB.
const MAX_VALUES: usize = 16 << 20;

/// Interpolates position tables and keeps the most recently used.
///
/// The lock is taken once for each batch and held for the lookup, not for the interpolation.
pub(super) struct PositionCache {
    table: PositionTable,
    entries: Mutex<Entries>,
}

/// Interpolated tables, most recently used first.
type Entries = VecDeque<(Grid, Arc<Array2<f32>>)>;

impl PositionCache {
    pub(super) fn new(table: PositionTable) -> Self {
        Self {
            table,
            entries: Mutex::default(),
        }
    }

    /// Returns the table for `grid`, `[1 + patches, dim]`.
    pub(super) fn get(&self, grid: Grid) -> Arc<Array2<f32>> {
        if let Some(table) = look_up(&mut self.lock(), grid) {
            return table;
        }
        let table = Arc::new(self.table.interpolate(grid));
        let mut entries = self.lock();
        if let Some(table) = look_up(&mut entries, grid) {
            // Another worker was faster.
            return table;
        }
        entries.push_front((grid, Arc::clone(&table)));
        while entries.len() > 1
            && entries.iter().map(|(_, table)| table.len()).sum::<usize>() > MAX_VALUES
        {
            entries.pop_back();
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the table for `grid` if it is cached, and makes it the most recently used.
fn look_up(entries: &mut Entries, grid: Grid) -> Option<Arc<Array2<f32>>> {
    let index = entries.iter().position(|(cached, _)| *cached == grid)?;
    let entry = entries.remove(index)?;
    let table = Arc::clone(&entry.1);
    entries.push_front(entry);
    Some(table)
}
