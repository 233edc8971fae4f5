//! Position tables by grid, the most recently used kept.

use std::{collections::VecDeque, rc::Rc};

use ndarray::Array2;

use crate::{model::PositionTable, vision::Grid};

/// Values (f32) that the kept tables may have together: 64 MB.
const BUDGET: usize = 16 << 20;

/// Belongs to one worker thread, so that no lock is needed.
pub(super) struct PositionCache {
    table: PositionTable,
    /// Most recently used first.
    kept: VecDeque<(Grid, Rc<Array2<f32>>)>,
}

impl PositionCache {
    pub(super) fn new(table: PositionTable) -> Self {
        Self { table, kept: VecDeque::new() }
    }

    /// The table for `grid`: `[1 + patches, dim]`.
    pub(super) fn get(&mut self, grid: Grid) -> Rc<Array2<f32>> {
        let found = self.kept.iter().position(|(kept, _)| *kept == grid).and_then(|at| self.kept.remove(at));
        let entry = found.unwrap_or_else(|| (grid, Rc::new(self.table.interpolate(grid))));
        let table = Rc::clone(&entry.1);
        self.kept.push_front(entry);
        while self.kept.len() > 1 && self.kept.iter().map(|(_, table)| table.len()).sum::<usize>() > BUDGET {
            self.kept.pop_back();
        }
        table
    }
}
