//! Position tables by grid, the most recently used kept for all workers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ndarray::Array2;

use crate::{model::PositionTable, vision::Grid};

/// Values (f32) that the kept tables may have together: 64 MB.
const BUDGET: usize = 16 << 20;

/// The tables that a batch of one grid needs. Its lock is taken once a batch and held for a look,
/// not for the arithmetic.
pub(super) struct PositionCache {
    table: PositionTable,
    kept: Mutex<Kept>,
}

/// Most recently used first.
type Kept = VecDeque<(Grid, Arc<Array2<f32>>)>;

impl PositionCache {
    pub(super) fn new(table: PositionTable) -> Self {
        Self {
            table,
            kept: Mutex::default(),
        }
    }

    /// The table for `grid`: `[1 + patches, dim]`.
    pub(super) fn get(&self, grid: Grid) -> Arc<Array2<f32>> {
        if let Some(table) = use_again(&mut self.kept(), grid) {
            return table;
        }
        let table = Arc::new(self.table.interpolate(grid));
        let mut kept = self.kept();
        if let Some(table) = use_again(&mut kept, grid) {
            // Another worker was faster.
            return table;
        }
        kept.push_front((grid, Arc::clone(&table)));
        while kept.len() > 1 && kept.iter().map(|(_, table)| table.len()).sum::<usize>() > BUDGET {
            kept.pop_back();
        }
        table
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table for `grid` if it is kept, now the most recently used.
fn use_again(kept: &mut Kept, grid: Grid) -> Option<Arc<Array2<f32>>> {
    let at = kept.iter().position(|(of, _)| *of == grid)?;
    let entry = kept.remove(at)?;
    let table = Arc::clone(&entry.1);
    kept.push_front(entry);
    Some(table)
}
